//! A profile in the file format of speedscope.

use serde_json::{Value as Json, json};

use super::folded::Folded;
use super::{Shown, View};

/// The file. Speedscope takes no negative weights: of a difference there are two profiles, that
/// which grew and that which shrank.
pub fn json(shown: &Shown<'_>, view: &View) -> Json {
    let folded = Folded::of(shown, view);
    let frames: Vec<Json> = folded
        .names
        .iter()
        .map(|name| json!({ "name": name }))
        .collect();
    let unit = if view.value.is_bytes() {
        "bytes"
    } else {
        "none"
    };
    let profile = |name: &str, weight: &dyn Fn([i64; 2]) -> i64| {
        let weighed = folded
            .stacks
            .iter()
            .map(|(stack, values)| (stack, weight(*values)));
        let weighed: Vec<_> = weighed.filter(|(_, weight)| *weight > 0).collect();
        let end = weighed
            .iter()
            .fold(0i64, |sum, (_, weight)| sum.saturating_add(*weight));
        json!({
            "type": "sampled",
            "name": name,
            "unit": unit,
            "startValue": 0,
            "endValue": end,
            "samples": weighed.iter().map(|(stack, _)| stack).collect::<Vec<_>>(),
            "weights": weighed.iter().map(|(_, weight)| weight).collect::<Vec<_>>(),
        })
    };
    let name = view.value.name();
    let profiles = match shown.before {
        None => vec![profile(name, &|[_, after]| after)],
        Some(_) => vec![
            profile(&format!("{name}, grew"), &|[before, after]| {
                after.saturating_sub(before)
            }),
            profile(&format!("{name}, shrank"), &|[before, after]| {
                before.saturating_sub(after)
            }),
        ],
    };
    json!({
        "$schema": "https://www.speedscope.app/file-format-schema.json",
        "exporter": concat!("obmalloc ", env!("CARGO_PKG_VERSION")),
        "name": shown.title,
        "activeProfileIndex": 0,
        "shared": { "frames": frames },
        "profiles": profiles,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::fixtures;
    use crate::profile::group::By;
    use crate::profile::value::Value;

    fn sum(profile: &Json) -> i64 {
        let weights = profile["weights"].as_array().unwrap();
        assert_eq!(weights.len(), profile["samples"].as_array().unwrap().len());
        weights.iter().map(|weight| weight.as_i64().unwrap()).sum()
    }

    #[test]
    fn weights_have_the_sum_of_the_profile() {
        let (before, after) = (fixtures::before(), fixtures::after());
        let view = View {
            by: By::Line,
            value: Value::InuseSpace,
            rows: None,
        };
        let one = json(&Shown::one("heap", &before), &view);
        assert_eq!(sum(&one["profiles"][0]), before.total()[3]);
        assert_eq!(one["profiles"][0]["endValue"], before.total()[3]);
        let frames = one["shared"]["frames"].as_array().unwrap().len() as u64;
        for stack in one["profiles"][0]["samples"].as_array().unwrap() {
            assert!(
                stack
                    .as_array()
                    .unwrap()
                    .iter()
                    .all(|frame| frame.as_u64().unwrap() < frames)
            );
        }
        let shown = Shown {
            before: Some(&before),
            ..Shown::one("heap", &after)
        };
        let two = json(&shown, &view);
        assert_eq!(sum(&two["profiles"][0]), 12_800);
        assert_eq!(sum(&two["profiles"][1]), 1440);
    }
}
