//! The screen of `obmalloc top`.
//!
//! ```text
//!   process, library, host                                 age
//!   RSS    |ours: live, free ...|C library|files|other|
//!   parts in numbers            arenas, pools, rates
//!   size classes, the largest first
//! ```

use std::time::Instant;

use ratatui::Frame;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph, Row, Table};

use super::watch::{Shown, Watch};
use crate::failure::Failure;
use crate::units::{bytes, count, percent};
use format::counters::Class;

/// A part: title, color, bytes.
type Part = (&'static str, Color, u64);

/// The sort keys of the classes.
const ORDERS: [&str; 3] = ["live bytes", "in memory", "size"];

/// Shows samples until the process ends or a key ends it.
pub fn show(mut watch: Watch) -> Result<(), Failure> {
    let mut terminal = ratatui::try_init().map_err(|error| {
        Failure::new(format!("cannot use this terminal: {error}"), "add --plain")
    })?;
    let done = run(&mut terminal, &mut watch);
    ratatui::restore();
    done
}

fn run(terminal: &mut ratatui::DefaultTerminal, watch: &mut Watch) -> Result<(), Failure> {
    let cannot =
        |error: std::io::Error| Failure::new(format!("cannot draw: {error}"), "add --plain");
    let mut order = 0;
    loop {
        let (pid, interval) = (watch.pid, watch.interval);
        let until = Instant::now() + interval;
        let Some(shown) = watch.look()? else {
            return Ok(());
        };
        loop {
            terminal
                .draw(|frame| draw(frame, pid, &shown, order))
                .map_err(cannot)?;
            let left = until.saturating_duration_since(Instant::now());
            if !event::poll(left).map_err(cannot)? {
                break;
            }
            match event::read().map_err(cannot)? {
                Event::Key(key) if key.kind == KeyEventKind::Press => {
                    let control = key.modifiers.contains(KeyModifiers::CONTROL);
                    match key.code {
                        KeyCode::Char('q') | KeyCode::Esc => return Ok(()),
                        KeyCode::Char('c') if control => return Ok(()),
                        KeyCode::Char('s') => order = (order + 1) % ORDERS.len(),
                        _ => {}
                    }
                }
                _ => {} // a resize: draws again
            }
        }
    }
}

/// Draws a sample.
pub fn draw(frame: &mut Frame<'_>, pid: u32, shown: &Shown<'_>, order: usize) {
    let parts = parts(shown);
    let rows = [
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(parts.len() as u16 + 2),
        Constraint::Min(3),
    ];
    let [title, bar, middle, classes] = Layout::vertical(rows).areas(frame.area());
    let breakdown = shown.breakdown;
    let host = breakdown.host_title();
    let age = if breakdown.age_ms > 2000 {
        format!(
            "  as of {} s ago: it does not answer",
            breakdown.age_ms / 1000
        )
    } else {
        String::new()
    };
    let text = format!("process {pid}  {host}  obmalloc {}{age}", breakdown.version);
    let line = Line::from(vec![text.bold(), "   q: end  s: sort".dark_gray()]);
    frame.render_widget(line, title);
    frame.render_widget(stacked(&parts, bar.width), bar);
    let [left, right] =
        Layout::horizontal([Constraint::Length(44), Constraint::Min(30)]).areas(middle);
    draw_parts(frame, left, &parts);
    draw_rest(frame, right, shown);
    draw_classes(frame, classes, shown, order);
}

/// The colors of the parts.
const COLORS: [Color; 9] = [
    Color::Green,
    Color::Cyan,
    Color::Yellow,
    Color::LightYellow,
    Color::Gray,
    Color::Blue,
    Color::LightBlue,
    Color::Magenta,
    Color::DarkGray,
];

/// The parts of the RSS, the library's one by one.
fn parts(shown: &Shown<'_>) -> Vec<Part> {
    let all = shown.breakdown.ours().into_iter();
    let all = all.chain(shown.breakdown.others()).zip(COLORS);
    all.map(|((name, bytes), color)| (name, color, bytes))
        .collect()
}

/// The parts as a bar of this width.
fn stacked(parts: &[Part], width: u16) -> Line<'static> {
    let whole: u64 = parts.iter().map(|part| part.2).sum();
    let (mut spans, mut before, mut at) = (Vec::new(), 0, 0);
    for (_, color, number) in parts {
        before += number;
        let end = (u128::from(before) * u128::from(width) / u128::from(whole.max(1))) as usize;
        spans.push(Span::styled(" ".repeat(end - at), Style::new().bg(*color)));
        at = end;
    }
    Line::from(spans)
}

fn draw_parts(frame: &mut Frame<'_>, area: Rect, parts: &[Part]) {
    let whole = parts.iter().map(|part| part.2).sum();
    let rows = parts.iter().map(|(name, color, number)| {
        Row::new([
            Line::from(vec![
                Span::styled("  ", Style::new().bg(*color)),
                format!(" {name}").into(),
            ]),
            Line::from(bytes(*number)).right_aligned(),
            Line::from(percent(*number, whole)).right_aligned(),
        ])
    });
    let widths = [
        Constraint::Length(24),
        Constraint::Length(9),
        Constraint::Length(6),
    ];
    let title = format!(" RSS {} ", bytes(whole));
    frame.render_widget(
        Table::new(rows, widths).block(Block::bordered().title(title)),
        area,
    );
}

fn draw_rest(frame: &mut Frame<'_>, area: Rect, shown: &Shown<'_>) {
    let s = &shown.breakdown.counters;
    let mut lines = vec![
        format!(
            "arenas  {} in use, {} empty, {} at most",
            count(s.arenas.in_use),
            count(s.arenas.empty),
            count(s.arenas.highwater)
        ),
        format!(
            "pools   {} used, {} full, {} free",
            count(s.pools.used),
            count(s.pools.full),
            count(s.pools.free)
        ),
        format!("returned so far  {}", bytes(s.resident.returned_total)),
        format!("large blocks     {}", s.large.blocks_live),
        String::new(),
    ];
    if let Some(rates) = shown.rates {
        lines.extend([
            format!("returned   {}/s", bytes(rates.returned as u64)),
            format!("misses     {}/s", count(rates.misses as u64)),
            format!(
                "arenas     +{:.1} -{:.1} /s",
                rates.arenas_in, rates.arenas_out
            ),
            format!(
                "large      {}/s   faults {}/s",
                count(rates.large as u64),
                count(rates.faults as u64)
            ),
        ]);
    }
    let lines: Vec<_> = lines.into_iter().map(Line::from).collect();
    frame.render_widget(
        Paragraph::new(lines).block(Block::bordered().title(" heap ")),
        area,
    );
}

fn draw_classes(frame: &mut Frame<'_>, area: Rect, shown: &Shown<'_>, order: usize) {
    let mut all: Vec<&Class> = shown
        .breakdown
        .classes
        .iter()
        .map(|(_, class)| class)
        .collect();
    let live = |class: &Class| class.size * class.blocks_live;
    all.sort_by_key(|class| {
        std::cmp::Reverse(match order {
            0 => live(class),
            1 => class.resident,
            _ => u64::MAX - class.size,
        })
    });
    let right = |text: String| Line::from(text).right_aligned();
    let rows = all.iter().map(|class| {
        Row::new([
            right(count(class.size)),
            right(count(class.pools)),
            right(count(class.pools_full)),
            right(count(class.blocks_live)),
            right(count(class.blocks_in_magazines)),
            right(count(class.blocks_free)),
            right(bytes(live(class))),
            right(bytes(class.resident)),
            right(percent(live(class), class.resident)),
        ])
    });
    let head = [
        "size",
        "pools",
        "full",
        "live",
        "cached",
        "free",
        "live bytes",
        "in memory",
        "of it live",
    ];
    let head = Row::new(head.map(|word| right(word.into()))).bold();
    let title = format!(" size classes, by {} ", ORDERS[order]);
    let table = Table::new(rows, [Constraint::Length(11); 9]).header(head);
    frame.render_widget(table.block(Block::bordered().title(title)), area);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rss::tests::some;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn drawn(width: u16, height: u16) -> String {
        let breakdown = some();
        let shown = Shown {
            breakdown: &breakdown,
            rates: Some(Default::default()),
        };
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
        let frame = terminal
            .draw(|frame| draw(frame, 77, &shown, 0))
            .expect("drawn");
        let cells = frame.buffer.content.chunks(usize::from(width));
        let lines = cells.map(|line| line.iter().map(|cell| cell.symbol()).collect::<String>());
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn parts_and_classes_are_on_it() {
        let screen = drawn(110, 30);
        for text in [
            "process 77",
            "CPython 3.13.0",
            "RSS 2.4 KiB",
            "live blocks",
            "1000 B",
            "40 %",
            "files and shared",
            "by live bytes",
            "960 B",
            "misses     0/s",
        ] {
            assert!(screen.contains(text), "{text} is not on\n{screen}");
        }
    }

    #[test]
    fn small_terminals_do_no_harm() {
        for (width, height) in [(1, 1), (20, 5), (79, 10), (300, 100)] {
            drawn(width, height);
        }
    }

    #[test]
    fn the_bar_is_as_wide_as_the_screen() {
        let parts = [
            ("a", Color::Red, 1),
            ("b", Color::Red, 2),
            ("c", Color::Red, u64::MAX / 8),
        ];
        assert_eq!(stacked(&parts, 80).width(), 80);
        assert_eq!(stacked(&[("a", Color::Red, 0)], 80).width(), 0);
    }
}
