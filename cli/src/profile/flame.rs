//! The flame graph: one page of HTML that fetches nothing, with inferno's picture in it.

use std::fmt::Write;

use inferno::flamegraph::color::BasicPalette;
use inferno::flamegraph::{self, Direction, Options, Palette, TextTruncateDirection};

use super::folded::Folded;
use super::value::amount;
use super::{Shown, View, table};

/// Sums beyond it are scaled down, because inferno multiplies them.
const LARGEST: u64 = 1 << 50;

/// The page of a file.
pub fn page(shown: &Shown<'_>, view: &View) -> String {
    page_with(shown, view, "", "")
}

/// The page, with a line of links and a script.
pub fn page_with(shown: &Shown<'_>, view: &View, links: &str, script: &str) -> String {
    let value = view.value;
    let after = shown.after.total()[value.at()];
    let number = |n, is_change| match value.is_bytes() {
        true => amount(n, value, is_change),
        false => format!("{} objects", amount(n, value, is_change)),
    };
    let sum = match shown.before {
        None => number(after, false),
        Some(before) => {
            let before = before.total()[value.at()];
            format!(
                "{} before, {} after, {}",
                number(before, false),
                number(after, false),
                number(after.saturating_sub(before), true)
            )
        }
    };
    let sum = format!(
        "{}: {sum}{}",
        value.name(),
        table::sampled(shown.after.period)
    );
    let unit = if value.is_bytes() { "bytes" } else { "objects" };
    let legend = match shown.before {
        None => format!(
            "<li>Width: {unit} of the frame and of those below it</li>\
             <li>[in brackets]: the type of the objects</li>\
             <li>Click: zoom</li><li>Ctrl-F: search</li>"
        ),
        Some(_) => format!(
            "<li><i style=\"background:#ff6464\"></i>grew</li>\
             <li><i style=\"background:#6464ff\"></i>shrank</li>\
             <li><i style=\"background:#fafafa\"></i>itself the same</li>\
             <li>Width: {unit} before or after, whichever is more</li>\
             <li>Click: zoom</li><li>Ctrl-F: search</li>"
        ),
    };
    let graph = graph(shown, view).unwrap_or_else(|| "<p>Nothing to draw.</p>".into());
    // The graph last: it has names of the program.
    include_str!("page.html")
        .replace("/*STYLE*/", include_str!("page.css"))
        .replace("<!--LINKS-->", links)
        .replace("<!--SCRIPT-->", script)
        .replace("<!--LEGEND-->", &legend)
        .replace("<!--SUM-->", &escaped(&sum))
        .replace("<!--WHOSE-->", &escaped(&shown.whose()))
        .replace("<!--TITLE-->", &escaped(&shown.title))
        .replace("<!--GRAPH-->", &graph)
}

/// A text for HTML, also in an attribute. No placeholder survives it.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// The picture, as an element of HTML; `None` if nothing has a width.
fn graph(shown: &Shown<'_>, view: &View) -> Option<String> {
    let folded = Folded::of(shown, view);
    let is_change = shown.before.is_some();
    let width = |[before, after]: [i64; 2]| before.max(after).max(0).cast_unsigned();
    let sum: u128 = folded
        .stacks
        .iter()
        .map(|(_, values)| u128::from(width(*values)))
        .sum();
    let scale = 1 + u64::try_from(sum / u128::from(LARGEST)).unwrap_or(u64::MAX - 1);
    let mut lines = Vec::with_capacity(folded.stacks.len());
    for (stack, values) in &folded.stacks {
        let width = width(*values);
        if width == 0 {
            continue;
        }
        let mut line = folded.line(stack);
        // Of two numbers inferno takes the second as the width and the difference for the colour.
        if is_change {
            let change = values[1].saturating_sub(values[0]);
            let first = (i128::from(width) - i128::from(change)).max(0) as u128;
            let _ = write!(line, " {}", first / u128::from(scale));
        }
        let _ = write!(line, " {}", width / scale);
        lines.push(line);
    }
    let mut options = Options::default();
    options.title = shown.title.clone();
    options.count_name = if view.value.is_bytes() {
        "bytes"
    } else {
        "objects"
    }
    .into();
    options.name_type = "".into();
    options.factor = scale as f64;
    options.colors = Palette::Basic(BasicPalette::Mem);
    options.deterministic = true;
    // The outermost frames, which are the widest, are at the top of the page.
    options.direction = Direction::Inverted;
    options.text_truncate_direction = TextTruncateDirection::Right;
    // Chart mode takes the lines as they are, the last first; sorting them as text would part stacks
    // of one frame.
    options.flame_chart = true;
    lines.reverse();
    let mut svg = Vec::new();
    let lines = lines.iter().map(String::as_str);
    flamegraph::from_lines(&mut options, lines, &mut svg).ok()?;
    let svg = String::from_utf8(svg).ok()?;
    let svg = svg.get(svg.find("<svg")?..)?;
    // In HTML the attribute has the name `fg:x`, without a namespace.
    Some(svg.replace(BY_NAMESPACE, "[fg\\\\:x=\""))
}

/// How inferno's script searches the frame that was zoomed before the page was loaded again.
const BY_NAMESPACE: &str = "[*|x=\"";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::fixtures::{self, Heap};
    use crate::profile::group::By;
    use crate::profile::model::Profile;
    use crate::profile::value::Value;

    const VIEW: View = View {
        by: By::Line,
        value: Value::InuseSpace,
        rows: None,
    };

    fn colours(page: &str, frame: &str) -> String {
        let (_, rest) = page.split_once(&format!("<title>{frame} (")).expect(frame);
        let (_, rest) = rest.split_once("fill=\"rgb(").unwrap();
        rest.split(')').next().unwrap().to_string()
    }

    #[test]
    fn the_page_has_everything_in_it() {
        let profile = fixtures::before();
        let page = page(&Shown::one("heap.pb.gz", &profile), &VIEW);
        for text in [
            "<title>heap.pb.gz</title>",
            "process 4711, CPython 3.13.5, obmalloc 0.1.0",
            "inuse_space: 13.6 KiB",
            "<title>remember (/srv/app/sessions.py:41) (7,400 bytes, 53.25%)</title>",
            "<title>[dict] (6,400 bytes",
        ] {
            assert!(page.contains(text), "{text}");
        }
        for placeholder in [
            "<!--TITLE",
            "<!--SUM",
            "<!--GRAPH",
            "<!--LEGEND",
            "<!--LINKS",
            "/*STYLE",
        ] {
            assert!(!page.contains(placeholder), "{placeholder}");
        }
        for outside in ["src=", "@import", "url(http", "<link", "xlink:href="] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(
            page.contains("fg\\\\:x=") && !page.contains(BY_NAMESPACE),
            "inferno's script is another"
        );
    }

    #[test]
    fn what_grew_is_red_and_what_shrank_is_blue() {
        let (before, after) = (fixtures::before(), fixtures::after());
        let shown = Shown {
            before: Some(&before),
            ..Shown::one("a to b", &after)
        };
        let page = page(&shown, &VIEW);
        let colour = |frame| -> Vec<u8> {
            colours(&page, frame)
                .split(',')
                .map(|part| part.parse().unwrap())
                .collect()
        };
        let grew = colour("remember (/srv/app/sessions.py:41)");
        assert!(grew[0] == 255 && grew[1] < 200, "{grew:?}");
        let shrank = colour("parse (/usr/lib/python3.13/json/decoder.py:350)");
        assert!(shrank[2] == 255 && shrank[0] < 250, "{shrank:?}");
        assert_eq!(
            colour("&lt;module&gt; (/srv/app/main.py:3)"),
            [250, 250, 250]
        );
    }

    #[test]
    fn names_of_the_program_are_no_markup() {
        let hostile = "</script><script>alert(1)</script><!--GRAPH-->";
        let file = Heap::new()
            .sample(
                &[&format!("{hostile} f'\"&.py 1")],
                [0, 0, 1, 7, 0],
                &[("type", "<b>]]>")],
            )
            .read();
        let page = page(&Shown::one(hostile, &file), &VIEW);
        assert_eq!(page.matches("<script").count(), 1);
        assert!(!page.contains("<b>") && !page.contains("alert(1)</script>"));
    }

    #[test]
    fn empty_and_huge_profiles_have_a_page() {
        let empty = Profile::default();
        assert!(page(&Shown::one("x", &empty), &VIEW).contains("Nothing to draw"));
        let mut huge = fixtures::before();
        for sample in &mut huge.samples {
            sample.values = [i64::MAX; 5];
        }
        assert!(page(&Shown::one("x", &huge), &VIEW).contains("remember ("));
        let shown = Shown {
            before: Some(&empty),
            ..Shown::one("x", &huge)
        };
        assert!(page(&shown, &VIEW).contains("remember ("));
        let shown = Shown {
            before: Some(&huge),
            ..Shown::one("x", &empty)
        };
        assert!(page(&shown, &VIEW).contains("remember ("));
        for sample in &mut huge.samples {
            sample.values = [i64::MIN; 5];
        }
        assert!(page(&Shown::one("x", &huge), &VIEW).contains("Nothing to draw"));
    }
}
