//! The texts of `sql/`, made ready for the server.
//!
//! Promises: a value is never looked into for places. Must not: quote a value.
//! Fails: never; a place that our own SQL lacks is a broken invariant and panics.

/// Fills each place once, from left to right.
///
/// # Panics
/// When the template does not name the places in this order.
pub fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut filled = String::new();
    let mut left = template;
    for (place, value) in values {
        let (before, after) =
            left.split_once(place).expect("our own SQL names its places in this order");
        filled.push_str(before);
        filled.push_str(value);
        left = after;
    }
    filled.push_str(left);
    filled
}

/// SQL without the comment that heads its file.
pub fn without_head(sql: &str) -> &str {
    let mut rest = sql;
    while rest.starts_with("--") {
        rest = rest.split_once('\n').map_or("", |(_, rest)| rest);
    }
    rest
}
