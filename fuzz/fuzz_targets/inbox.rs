#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| postrider::fuzz::inbox(input));
