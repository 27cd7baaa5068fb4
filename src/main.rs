//! The `postrider` binary: see [`postrider::cli`].

use std::process::ExitCode;

/// librdkafka allocates twice per record; its own `malloc` is replaced too (feature `override`).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    postrider::cli::main()
}
