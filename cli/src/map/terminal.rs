//! The picture in a terminal: two lines of cells in a line of text.
//!
//! A half block (U+2580) shows two cells: its upper half in the foreground's colour, the
//! lower one in the background's. Without colours a cell is a letter, and a line of cells is a
//! line of text.

use std::env;
use std::fmt::Write;
use std::io::{self, IsTerminal};

use crate::map::colours::{self, Rgb};
use crate::map::legend::{self, Parts};
use crate::map::picture::{self, Cell, FACTORS, Tile};
use crate::open::Named;
use crate::output::Table;
use crate::snapshot::PAGE;
use crate::summary::{Below, Class, Summary};
use crate::units;

/// Classes in the legend: those with the most memory.
const CLASSES: usize = 16;
/// Columns of an address and the space after it.
const ADDRESS: usize = 13;

/// The colours of a terminal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Colours {
    /// 24 bit.
    All,
    /// The 256 of nearly every terminal.
    Few,
    /// None: letters.
    None,
}

impl Colours {
    /// The colours by the options; without one, those of the terminal.
    pub fn of_options(yes: bool, no: bool) -> Colours {
        let set = |name| env::var(name).unwrap_or_default();
        let dumb = set("TERM") == "dumb" || !set("NO_COLOR").is_empty();
        if no || !yes && (dumb || !io::stdout().is_terminal()) {
            return Colours::None;
        }
        match set("COLORTERM").as_str() {
            "truecolor" | "24bit" => Colours::All,
            _ => Colours::Few,
        }
    }

    /// The part of an escape sequence that sets a colour as foreground (38) or background (48).
    fn code(self, ground: u8, colour: Rgb) -> String {
        match self {
            Colours::All => format!("{ground};2;{};{};{}", colour.0, colour.1, colour.2),
            _ => format!("{ground};5;{}", colour.of_256()),
        }
    }

    /// `text` in a colour.
    fn paint(self, text: &str, colour: Rgb) -> String {
        match self {
            Colours::None => text.into(),
            _ => format!("\x1b[{}m{text}\x1b[0m", self.code(38, colour)),
        }
    }
}

/// The columns of the picture: the option, else the terminal's, else `COLUMNS`, else 80.
pub fn width(asked: Option<u16>) -> usize {
    let terminal = || ratatui::crossterm::terminal::size().ok();
    let said = || env::var("COLUMNS").ok()?.parse::<u16>().ok();
    let is_terminal = io::stdout().is_terminal();
    let found = asked
        .or_else(|| {
            terminal()
                .filter(|_| is_terminal)
                .map(|(columns, _)| columns)
        })
        .or_else(said);
    usize::from(found.unwrap_or(80).max(20))
}

/// The form of the picture.
pub struct Terminal {
    pub colours: Colours,
    /// Columns of the picture, and the maximum of its lines.
    pub width: usize,
    pub lines: usize,
    pub below: Below,
}

/// The arrangement of tiles: pages per cell, tiles per row, lines of text per row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Plan {
    factor: usize,
    across: usize,
    lines: usize,
    /// The address is above each tile; else that of the first tile is before its row.
    named: bool,
}

impl Terminal {
    /// The picture with its title and legend.
    pub fn show(&self, named: &Named) -> String {
        let heap = &named.heap;
        let summary = Summary::of(heap, self.below);
        let plan = self.plan(picture::count(heap));
        let mut out = format!(
            "{}\n{}\n",
            legend::title(named),
            legend::memory(heap, &Parts::of(&summary))
        );
        let tiles = picture::tiles(heap, plan.factor);
        for row in tiles.chunks(plan.across) {
            self.row(&mut out, row, plan);
        }
        if tiles.is_empty() {
            out += "There are no arenas: no small block was allocated yet.\n";
        }
        self.legend(&mut out, &summary, plan.factor);
        out
    }

    /// The finest arrangement of `tiles` tiles that fits.
    fn plan(&self, tiles: usize) -> Plan {
        let plan = |factor: usize| {
            let (width, height) = picture::shape(factor);
            let named = width + 1 >= ADDRESS;
            let room = if named {
                self.width + 1
            } else {
                self.width - ADDRESS
            };
            let lines = match self.colours {
                Colours::None => height,
                _ => height.div_ceil(2),
            };
            Plan {
                factor,
                across: (room / (width + usize::from(named))).max(1),
                lines: lines + usize::from(named),
                named,
            }
        };
        let fits = |plan: &Plan| tiles.div_ceil(plan.across) * plan.lines <= self.lines;
        let coarsest = plan(FACTORS[FACTORS.len() - 1]);
        FACTORS.map(plan).into_iter().find(fits).unwrap_or(coarsest)
    }

    /// One row of tiles.
    fn row(&self, out: &mut String, row: &[Tile], plan: Plan) {
        let (width, height) = picture::shape(plan.factor);
        let gap = if plan.named { " " } else { "" };
        if plan.named {
            let names: Vec<_> = row.iter().map(|tile| name(tile, width)).collect();
            let _ = writeln!(out, "{}", names.join(gap).trim_end());
        }
        let step = if self.colours == Colours::None { 1 } else { 2 };
        for line in (0..height).step_by(step) {
            if !plan.named {
                let address = row.first().filter(|_| line == 0);
                let address = address.map(|tile| format!("{:x}", tile.address));
                let _ = write!(out, "{:<ADDRESS$}", address.unwrap_or_default());
            }
            let mut painter = Painter::new(self.colours);
            for (n, tile) in row.iter().enumerate() {
                if n > 0 {
                    painter.gap(gap);
                }
                for column in 0..width {
                    painter.cells(tile.at(column, line), tile.at(column, line + 1));
                }
            }
            let _ = writeln!(out, "{}", painter.end());
        }
    }

    fn legend(&self, out: &mut String, summary: &Summary, factor: usize) {
        if factor > 1 {
            let bytes = units::bytes(factor as u64 * u64::from(PAGE));
            let _ = writeln!(
                out,
                "Merged to fit: a cell is {factor} pages, {bytes} (--max-rows shows more)."
            );
        }
        let sample = |cell: Cell, letter: &str| match self.colours {
            Colours::None => letter.to_string(),
            colours => colours.paint("\u{2588}\u{2588}", cell.colour()),
        };
        let shades = match self.colours {
            Colours::None => {
                "A: blocks up to 16 bytes, B 32, C 64, D 128 ... L 32768; small letters: less \
                              than a quarter taken\n"
                    .to_string()
            }
            colours => {
                let shade = |fill| colours.paint("\u{2588}", colours::of_page(64, fill));
                let all: String = [0.02, 0.25, 0.5, 0.75, 1.0].map(shade).concat();
                format!("{all} nearly empty to full")
            }
        };
        let _ = writeln!(
            out,
            "{shades}   {} empty pool   {} not in memory\n",
            sample(Cell::Empty, "-"),
            sample(Cell::Away, ".")
        );
        self.classes(out, summary);
        let total = summary.total();
        let said = legend::nearly_empty(&total, self.below.0);
        let _ = writeln!(out, "{}", said.replace("): ", "):\n"));
    }

    /// The table of classes: those with the most memory, then the others together.
    fn classes(&self, out: &mut String, summary: &Summary) {
        let mut largest: Vec<&Class> = summary.classes.iter().collect();
        largest.sort_by_key(|class| std::cmp::Reverse(class.here));
        let others = largest.split_off(largest.len().min(CLASSES));
        largest.sort_by_key(|class| class.size);
        let mut table = Table::new(0, &legend::HEAD);
        for class in &largest {
            table.row(legend::row(class, class.size.to_string()));
        }
        if !others.is_empty() {
            let mut sum = Class::default();
            others.iter().for_each(|class| sum.add(class));
            let blocks = others.iter().map(|class| class.bytes()).sum::<u64>();
            let mut row = legend::row(&sum, format!("{} others", others.len()));
            row[2] = units::bytes(blocks);
            table.row(row);
        }
        let swatch = |class: &Class| match self.colours {
            Colours::None => format!("{} ", letter(class.size)),
            colours => {
                let shade = |fill| colours.paint("\u{2588}", colours::of_page(class.size, fill));
                format!("{}{}", shade(1.0), shade(0.1))
            }
        };
        for (n, line) in table.lines().iter().enumerate() {
            let class = n.checked_sub(1).and_then(|n| largest.get(n));
            let swatch = class.map_or_else(|| "  ".into(), |class| swatch(class));
            let _ = writeln!(out, "{swatch} {line}");
        }
    }
}

/// An arena's address and its taken part in percent, in the width of its tile.
fn name(tile: &Tile, width: usize) -> String {
    let address = format!("{:x}", tile.address);
    let percent = tile.percent.map_or("-".into(), |n| format!("{n} %"));
    let line = "\u{2500}".repeat(width.saturating_sub(address.len() + percent.len() + 2));
    if width < ADDRESS + 7 {
        format!("{address:<width$}")
    } else {
        format!("{address} {line} {percent}")
    }
}

/// The letter for a block size: A up to 16 bytes, one more for each doubling.
fn letter(size: u32) -> char {
    let doubling = size.clamp(16, 32768).next_power_of_two().ilog2() - 4;
    char::from(b'A' + doubling as u8)
}

/// Cells as text, with an escape sequence where the colour changes.
struct Painter {
    colours: Colours,
    text: String,
    last: Option<(Rgb, Rgb)>,
}

impl Painter {
    fn new(colours: Colours) -> Painter {
        Painter {
            colours,
            text: String::new(),
            last: None,
        }
    }

    fn gap(&mut self, gap: &str) {
        if self.last.take().is_some() {
            self.text += "\x1b[0m";
        }
        self.text += gap;
    }

    /// Two cells above each other; of letters, the upper one.
    fn cells(&mut self, upper: Cell, lower: Cell) {
        if self.colours == Colours::None {
            self.text.push(match upper {
                Cell::None => ' ',
                Cell::Away => '.',
                Cell::Empty => '-',
                Cell::Used { size, fill } if fill < 64 => letter(size).to_ascii_lowercase(),
                Cell::Used { size, .. } => letter(size),
            });
            return;
        }
        if upper == Cell::None && lower == Cell::None {
            self.gap(" ");
            return;
        }
        let pair = (upper.colour(), lower.colour());
        if self.last != Some(pair) {
            let fore = self.colours.code(38, pair.0);
            let back = self.colours.code(48, pair.1);
            let _ = write!(self.text, "\x1b[{fore};{back}m");
            self.last = Some(pair);
        }
        self.text.push('\u{2580}');
    }

    fn end(mut self) -> String {
        self.gap("");
        self.text.truncate(self.text.trim_end().len());
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{Heap, Pool};

    fn terminal(colours: Colours, width: usize, lines: usize) -> Terminal {
        Terminal {
            colours,
            width,
            lines,
            below: Below::USUAL,
        }
    }

    fn named(heap: &Heap) -> Named {
        Named {
            name: "test".into(),
            heap: heap.read(),
        }
    }

    /// So many arenas of 32 pools each.
    fn large(arenas: u64) -> Heap {
        let pools = || (0..32).map(|n| Pool::of(8, 64, move |b| b % (n + 1) == 0));
        Heap {
            arenas: (0..arenas)
                .map(|n| (0x7f00_0000_0000 + (n << 21), pools().collect()))
                .collect(),
            ..Heap::default()
        }
    }

    /// Without escape sequences.
    fn plain(text: &str) -> String {
        let mut parts = text.split("\x1b[");
        let first = parts.next().unwrap_or_default().to_string();
        let rest = parts.map(|part| part.split_once('m').expect("a whole sequence").1);
        first + &rest.collect::<String>()
    }

    #[test]
    fn letters_show_classes_and_how_full_pages_are() {
        let shown = terminal(Colours::None, 80, 64).show(&named(&Heap::example()));
        let lines: Vec<&str> = shown.lines().collect();
        assert!(
            lines[0].starts_with("test: process 4711, CPython 3.13"),
            "{shown}"
        );
        assert!(lines[6].contains("7f0000000000 ") && lines[6].contains("7f0000600000 "));
        // Pools of 64, 64 with few, empty, 512 with few; then 1024 half full.
        assert!(lines[7].starts_with("Cc-f   "), "{shown}");
        assert!(lines[7].ends_with("G."), "{shown}");
        assert!(lines[9].starts_with("C.-f"), "{shown}");
        assert!(!shown.contains('\x1b'));
    }

    #[test]
    fn half_blocks_show_two_lines_of_cells_in_one_of_text() {
        let shown = terminal(Colours::All, 80, 64).show(&named(&Heap::example()));
        let lines: Vec<&str> = shown.lines().collect();
        let full = colours::of_page(64, 1.0);
        let code = format!("\x1b[38;2;{};{};{};48;2", full.0, full.1, full.2);
        assert!(lines[8].starts_with(&code), "{:?}", lines[8]);
        assert_eq!(plain(&shown).matches('\u{2580}').count(), 8 * (4 + 2));
        let few = terminal(Colours::Few, 80, 64).show(&named(&Heap::example()));
        assert!(few.contains("\x1b[38;5;") && !few.contains(";2;"));
        assert_eq!(plain(&few), plain(&shown));
    }

    #[test]
    fn pictures_fit_where_they_are_shown() {
        for arenas in [1, 2, 3, 60] {
            let heap = named(&large(arenas));
            for width in [40, 132] {
                for lines in [4, 40, 200] {
                    for colours in [Colours::All, Colours::None] {
                        let terminal = terminal(colours, width, lines);
                        let plan = terminal.plan(arenas as usize);
                        let shown = terminal.show(&heap);
                        let text = plain(&shown);
                        let rows = (arenas as usize).div_ceil(plan.across);
                        if plan.factor < 256 {
                            assert!(rows * plan.lines <= lines, "{plan:?}");
                        }
                        let picture = text.lines().skip(6).take(rows * plan.lines);
                        for line in picture {
                            assert!(line.chars().count() <= width, "{plan:?}: {line}");
                        }
                        let merged = text.contains(&format!("a cell is {} pages", plan.factor));
                        assert_eq!(merged, plan.factor > 1);
                        if lines == 200 && arenas == 2 {
                            assert_eq!(plan.factor, 1);
                        }
                    }
                }
            }
        }
    }
}
