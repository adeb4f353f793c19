//! Stacks as lists of names with one value, or two to compare: what flame graphs are made of.

use std::cmp::Reverse;
use std::fmt::Write;

use indexmap::{IndexMap, IndexSet};

use super::group::By;
use super::model::{self, Frame, Profile, Sample};
use super::{Shown, View};
use format::profile::TRUNCATED;

/// The most characters of a name.
const LONGEST: usize = 256;
/// The most frames of a stack; inner ones are dropped.
const DEEPEST: usize = 1024;
/// The most bytes of all stacks as text; the stacks with the least memory are merged beyond it.
const MOST_TEXT: usize = 64 << 20;

/// Stacks with the values of the earlier and the later profile.
pub struct Folded {
    /// Names of frames.
    pub names: IndexSet<String>,
    /// Indices of names, the outermost first; sorted as lists of names.
    pub stacks: Vec<(Vec<u32>, [i64; 2])>,
}

impl Folded {
    pub fn of(shown: &Shown<'_>, view: &View) -> Folded {
        let mut names = IndexSet::new();
        let mut stacks: IndexMap<Vec<u32>, [i64; 2]> = IndexMap::new();
        let is_change = shown.before.is_some();
        for (which, profile) in [shown.before, Some(shown.after)].into_iter().enumerate() {
            let Some(profile) = profile else { continue };
            for sample in &profile.samples {
                let value = sample.values[view.value.at()];
                if value != 0 {
                    let stack = stack(profile, sample, view.by, is_change, &mut names);
                    let sum = &mut stacks.entry(stack).or_default()[which];
                    *sum = sum.saturating_add(value);
                }
            }
        }
        let mut stacks: Vec<_> = stacks.into_iter().collect();
        merge_the_least(&mut stacks, &mut names);
        let name = |number: &u32| names.get_index(*number as usize);
        stacks.sort_by(|(a, _), (b, _)| a.iter().map(name).cmp(b.iter().map(name)));
        Folded { names, stacks }
    }

    /// A stack's names with semicolons between.
    pub fn line(&self, stack: &[u32]) -> String {
        let names = stack
            .iter()
            .filter_map(|&number| self.names.get_index(number as usize));
        let names: Vec<&str> = names.map(String::as_str).collect();
        names.join(";")
    }
}

/// The names of a sample's frames. A group by labels is the outermost one; the type, the innermost.
fn stack(
    profile: &Profile,
    sample: &Sample,
    by: By,
    is_change: bool,
    names: &mut IndexSet<String>,
) -> Vec<u32> {
    let mut stack = Vec::new();
    let mut push = |stack: &mut Vec<u32>, name: &str| {
        let clean = name.trim().replace(';', ":");
        let mut clean: String = clean.chars().take(LONGEST).collect();
        if clean.is_empty() {
            clean.push('?');
        }
        stack.push(names.insert_full(clean).0 as u32);
    };
    if !by.is_of_frames() {
        push(&mut stack, &by.group(profile, sample));
    }
    let frames = profile.stack(sample).rev();
    let is_deep = frames.clone().nth(DEEPEST).is_some();
    for frame in frames.take(DEEPEST) {
        let name = match by {
            By::Module => by.frame(profile, Some(frame)),
            By::Function => model::label(profile, &Frame { line: 0, ..*frame }),
            _ => model::label(profile, frame),
        };
        push(&mut stack, &name);
    }
    if is_deep {
        push(&mut stack, TRUNCATED);
    }
    if profile.stack(sample).next().is_none() {
        push(&mut stack, &by.frame(profile, None));
    }
    if by == By::Module {
        stack.dedup();
    }
    // In a difference inferno gives a colour to innermost frames only: these should be lines.
    if let (Some(kind), false, false) = (sample.labels.kind, is_change, by == By::Type) {
        push(&mut stack, &format!("[{}]", profile.text_of(kind)));
    }
    stack
}

/// Keeps the stacks with the most memory, as far as their text has room.
fn merge_the_least(stacks: &mut Vec<(Vec<u32>, [i64; 2])>, names: &mut IndexSet<String>) {
    let width = |[before, after]: [i64; 2]| before.unsigned_abs().max(after.unsigned_abs());
    stacks.sort_by_key(|&(_, values)| Reverse(width(values)));
    let mut room = MOST_TEXT;
    let text = |stack: &[u32]| -> usize {
        let lens = stack
            .iter()
            .filter_map(|&number| names.get_index(number as usize));
        lens.map(|name| name.len() + 1).sum()
    };
    let fitting = stacks.iter().take_while(|(stack, _)| {
        let len = text(stack);
        let fits = len <= room;
        room = room.saturating_sub(len);
        fits
    });
    let fitting = fitting.count();
    if fitting < stacks.len() {
        let mut others = [0i64; 2];
        for (_, values) in stacks.drain(fitting..) {
            for (sum, value) in others.iter_mut().zip(values) {
                *sum = sum.saturating_add(value);
            }
        }
        let number = names.insert_full("(other stacks)".into()).0;
        stacks.push((vec![number as u32], others));
    }
}

/// A line for each stack: names, and the value; in a comparison the values before and after.
pub fn text(shown: &Shown<'_>, view: &View) -> String {
    let folded = Folded::of(shown, view);
    let mut out = String::new();
    for (stack, [before, after]) in &folded.stacks {
        out.push_str(&folded.line(stack));
        let _ = match shown.before {
            Some(_) => writeln!(out, " {before} {after}"),
            None => writeln!(out, " {after}"),
        };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::value::Value;
    use crate::profile::{fixtures, reader};

    fn lines(profile: &Profile, by: By) -> Vec<String> {
        let view = View {
            by,
            value: Value::InuseSpace,
            rows: None,
        };
        let text = text(&Shown::one("x", profile), &view);
        text.lines().map(String::from).collect()
    }

    #[test]
    fn stacks_begin_with_the_outermost_frame() {
        let profile = fixtures::before();
        let main = "<module> (/srv/app/main.py:3)";
        let remember = "remember (/srv/app/sessions.py:41)";
        let has = |by, line: String| {
            let lines = lines(&profile, by);
            assert!(lines.contains(&line), "{lines:#?}");
        };
        has(By::Line, format!("{main};{remember};[dict] 6400"));
        has(By::Line, format!("{main};{remember};[str] 1000"));
        has(By::Type, format!("dict;{main};{remember} 6400"));
        has(
            By::Module,
            "/srv/app/main.py;json.decoder;[list] 2400".into(),
        );
        assert_eq!(lines(&profile, By::Domain).len(), 4);
    }

    #[test]
    fn two_profiles_have_two_values() {
        let (before, after) = (fixtures::before(), fixtures::after());
        let view = View {
            by: By::Function,
            value: Value::InuseObjects,
            rows: None,
        };
        let shown = Shown {
            before: Some(&before),
            ..Shown::one("x", &after)
        };
        let text = text(&shown, &view);
        assert!(
            text.contains("remember (/srv/app/sessions.py) 110 310\n"),
            "{text}"
        );
        assert!(text.contains("decoder.py) 50 20\n"), "{text}");
    }

    #[test]
    fn hostile_names_stay_in_their_frame() {
        let file = fixtures::Heap::new()
            .sample(
                &["a;b\n f;.py 1", " # 0"],
                [0, 0, 1, 7, 0],
                &[("type", ";")],
            )
            .bytes();
        let profile = reader::read(&file[..]).unwrap();
        assert_eq!(lines(&profile, By::Line), ["(#);a:b (f:.py:1);[:] 7"]);
    }

    #[test]
    fn stacks_that_are_too_long_are_merged() {
        let mut profile = fixtures::before();
        let long = "x".repeat(4096);
        let function = profile.text(&long);
        let frame = Frame {
            function,
            ..*profile.frames.get_index(0).unwrap()
        };
        let inner = profile.frames.insert_full(frame).0 as u32;
        let sample = profile.samples[0];
        for line in 1000..1400 {
            let outer = profile.frames.insert_full(Frame { line, ..frame }).0 as u32;
            let mut deep = vec![inner; 2000];
            deep.push(outer);
            let stack = profile.stacks.insert_full(deep.into()).0 as u32;
            profile.samples.push(Sample { stack, ..sample });
        }
        let lines = lines(&profile, By::Line);
        assert!(lines.iter().all(|line| line.len() < 512 * 1024));
        assert!(lines.iter().any(|line| line.contains(TRUNCATED)));
        let sum = lines
            .iter()
            .map(|line| line.rsplit(' ').next().unwrap().parse::<i64>().unwrap());
        assert_eq!(sum.sum::<i64>(), profile.total()[3]);
        let all: usize = lines.iter().map(String::len).sum();
        assert!(all < MOST_TEXT + 1000);
    }
}
