//! The values of a sample.

use format::profile::SAMPLE_TYPES;

/// Which of a sample's values is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    AllocObjects,
    AllocSpace,
    InuseObjects,
    InuseSpace,
    PinnedSpace,
}

/// In the order of [`SAMPLE_TYPES`].
const ALL: [Value; SAMPLE_TYPES.len()] = [
    Value::AllocObjects,
    Value::AllocSpace,
    Value::InuseObjects,
    Value::InuseSpace,
    Value::PinnedSpace,
];

impl Value {
    /// The value with this name.
    pub fn named(name: &str) -> Option<Value> {
        ALL.into_iter().find(|value| value.name() == name)
    }

    /// Its name in a profile.
    pub fn name(self) -> &'static str {
        SAMPLE_TYPES[self.at()].0
    }

    /// `bytes` or `count`.
    pub fn unit(self) -> &'static str {
        SAMPLE_TYPES[self.at()].1
    }

    /// Its place among a sample's values.
    pub fn at(self) -> usize {
        self as usize
    }

    /// Whether it is a number of bytes.
    pub fn is_bytes(self) -> bool {
        self.unit() == "bytes"
    }

    /// The number of objects whose bytes it is, or the reverse.
    pub fn counterpart(self) -> Value {
        match self {
            Value::AllocObjects => Value::AllocSpace,
            Value::AllocSpace => Value::AllocObjects,
            Value::InuseObjects => Value::InuseSpace,
            Value::InuseSpace | Value::PinnedSpace => Value::InuseObjects,
        }
    }
}

/// A number of this value for people, with a sign if it may be negative.
pub fn amount(n: i64, value: Value, is_change: bool) -> String {
    let size = n.unsigned_abs();
    let text = if value.is_bytes() {
        crate::units::bytes(size)
    } else {
        crate::units::count(size)
    };
    match n {
        0 => text,
        1.. if is_change => format!("+{text}"),
        1.. => text,
        _ => format!("-{text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_in_the_order_of_the_format() {
        for (n, value) in ALL.into_iter().enumerate() {
            assert_eq!(value.at(), n);
            assert_eq!(Value::named(value.name()), Some(value));
            let other = value.counterpart();
            assert_ne!(value.is_bytes(), other.is_bytes());
            assert_eq!(
                value.name().split('_').next() == Some("alloc"),
                other.name().starts_with("alloc")
            );
        }
        assert_eq!(Value::named("inuse"), None);
    }

    #[test]
    fn changes_have_a_sign() {
        assert_eq!(amount(2048, Value::InuseSpace, false), "2.0 KiB");
        assert_eq!(amount(2048, Value::InuseSpace, true), "+2.0 KiB");
        assert_eq!(amount(-12345, Value::InuseObjects, true), "-12 345");
        assert_eq!(amount(0, Value::PinnedSpace, true), "0 B");
        assert_eq!(amount(i64::MIN, Value::AllocSpace, true), "-8192 PiB");
    }
}
