//! What `migrate up` applies to an empty database.

/// All migrations, in their order.
pub(crate) const TITLES: &[&str] = &[
    "0000 registry",
    "0001 control",
    "0002 outbox",
    "0003 interface",
    "0004 tier",
    "0005 parked",
    "0006 log",
    "0007 adopted",
    "0008 arrival",
    "0009 law",
    "0010 parked_key",
    "0011 held_names",
    "0012 adopted_rows",
    "0013 printed",
    "0014 past_tick",
    "0015 strangers",
    "0016 window",
    "0017 pause",
    "0018 health",
    "0019 delivery",
    "0020 steer",
    "0021 proof",
    "0022 whereabouts",
    "0023 large_part",
];
