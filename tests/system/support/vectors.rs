//! Golden vectors, read from `tests/vectors`.

/// Keys and the partitions that Java's client gives them, for a topic with so many partitions. Keys
/// that no `text` column can hold are left out.
pub(crate) fn java_partitions(partitions: i32) -> Vec<(String, i32)> {
    include_str!("../../vectors/partition.csv")
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split(',').collect();
            let [key, count, partition] = fields[..] else { panic!("not a vector: {line}") };
            let key = String::from_utf8(from_hexadecimal(key)).ok()?;
            let wanted = count == partitions.to_string() && !key.contains('\0');
            wanted.then(|| (key, partition.parse().expect("a number")))
        })
        .collect()
}

fn from_hexadecimal(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal"))
        .collect()
}
