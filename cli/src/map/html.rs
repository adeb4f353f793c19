//! The picture as one page of HTML that fetches nothing.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::map::colours::{self, Rgb};
use crate::map::legend::{self, Parts};
use crate::open::Named;
use crate::snapshot::Snapshot;
use crate::summary::{Below, Summary};

/// Shades of a class, the dimmest first.
const SHADES: u32 = 32;
/// Pages of a pool.
const PAGES: usize = 16;

/// The page of these snapshots.
pub fn page(snapshots: &[Named], below: Below) -> String {
    let mut shades = BTreeMap::new();
    for pool in snapshots.iter().flat_map(|named| &named.heap.pools) {
        let size = pool.cut.map(|cut| cut.size);
        shades.extend(size.map(|size| (size.to_string(), shades_of(size))));
    }
    let mut scale = serde_json::Map::new();
    for size in [16, 32, 64, 128, 256, 512, 2048, 8192, 32768] {
        let colour = colours::of_page(size, 1.0).hex();
        scale.insert(size.to_string(), colour.into());
    }
    scale.insert("shades".into(), json!(shades_of(64)));
    let data = json!({
        "snapshots": snapshots.iter().map(|named| snapshot(named, below)).collect::<Vec<_>>(),
        "shades": shades,
        "scale": scale,
        "away": Rgb::RETURNED.hex(),
        "empty": Rgb::EMPTY.hex(),
    });
    // In a script only `<` can begin markup.
    let data = data.to_string().replace('<', "\\u003c");
    include_str!("page.html")
        .replace("/*STYLE*/", include_str!("page.css"))
        .replace("/*SCRIPT*/", include_str!("page.js"))
        .replace("/*DATA*/", &data)
}

fn shades_of(size: u32) -> Vec<String> {
    let fill = |n| f64::from(n) / f64::from(SHADES);
    let shade = |n| colours::of_page(size, fill(n)).hex();
    (0..=SHADES).map(shade).collect()
}

/// The data of a snapshot. Pages have two columns: taken bytes plus 1, or 0 for a page that is
/// not resident; and blocks.
fn snapshot(named: &Named, below: Below) -> Value {
    let heap = &named.heap;
    let summary = Summary::of(heap, below);
    let parts = Parts::of(&summary);
    let cut = |of: fn(&crate::snapshot::Cut) -> u32| {
        column(
            heap.pools
                .iter()
                .map(|pool| pool.cut.as_ref().map_or(0, of)),
        )
    };
    let classes = summary.classes.iter().map(|class| {
        json!({
            "size": class.size, "blocks": class.blocks, "here": class.here,
            "taken": class.taken_bytes, "nearly": class.nearly_empty, "pinned": class.pinned,
        })
    });
    let arenas = heap
        .arenas
        .iter()
        .map(|arena| json!([format!("0x{:x}", address(heap, arena)), arena.pools.len()]));
    json!({
        "name": named.name,
        "whose": legend::process(heap),
        "sentence": legend::nearly_empty(&summary.total(), below.0),
        "parts": {
            "taken": parts.taken, "pinned": parts.pinned, "idle": parts.idle,
            "empty": parts.empty, "away": parts.away,
        },
        "classes": classes.collect::<Vec<_>>(),
        "arenas": arenas.collect::<Vec<_>>(),
        "sizes": cut(|cut| cut.size),
        "pool_taken": cut(|cut| cut.taken),
        "pool_blocks": cut(|cut| cut.blocks),
        "taken": column(pages(heap, |page| match page.is_here() {
            true => u32::from(page.taken_bytes) + 1,
            false => 0,
        })),
        "blocks": column(pages(heap, |page| u32::from(page.blocks))),
    })
}

fn address(heap: &Snapshot, arena: &crate::snapshot::Arena) -> u64 {
    let first = heap.pools.get(arena.pools.start);
    let first = first.filter(|_| !arena.pools.is_empty());
    first.map_or(arena.address, |pool| pool.address)
}

/// A number of each page, for 16 pages of a pool.
fn pages(heap: &Snapshot, of: impl Fn(&crate::snapshot::Page) -> u32) -> impl Iterator<Item = u32> {
    heap.pools.iter().flat_map(move |pool| {
        let own: Vec<u32> = heap.pages[pool.pages.clone()].iter().map(&of).collect();
        (0..PAGES).map(move |n| own.get(n).copied().unwrap_or(0))
    })
}

/// Numbers as runs of count and value, as varints, in base64.
fn column(numbers: impl Iterator<Item = u32>) -> String {
    let (mut out, mut run) = (Vec::new(), None);
    let mut end = |run: Option<(u32, u32)>| {
        for mut number in run.into_iter().flat_map(|(count, number)| [count, number]) {
            while number > 127 {
                out.push(number as u8 | 128);
                number >>= 7;
            }
            out.push(number as u8);
        }
    };
    for number in numbers {
        run = match run {
            Some((count, last)) if last == number => Some((count + 1, last)),
            before => {
                end(before);
                Some((1, number))
            }
        };
    }
    end(run);
    base64(&out)
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let byte = |n: usize| u32::from(three.get(n).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for n in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * n) & 63) as usize];
            out.push(if n > three.len() {
                '='
            } else {
                char::from(digit)
            });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::Heap;

    #[test]
    fn columns_are_runs_in_base64() {
        assert_eq!(base64(b""), "");
        assert_eq!(base64(b"M"), "TQ==");
        assert_eq!(base64(b"Ma"), "TWE=");
        assert_eq!(base64(b"Man"), "TWFu");
        // 3 times 7, once 4097 (0x81 0x20).
        assert_eq!(
            column([7, 7, 7, 4097].into_iter()),
            base64(&[3, 7, 1, 0x81, 0x20])
        );
        assert_eq!(column(std::iter::empty()), "");
    }

    #[test]
    fn the_page_has_everything_in_it() {
        let named = |name: &str| Named {
            name: name.into(),
            heap: Heap::example().read(),
        };
        let page = page(&[named("a</script>b"), named("c")], Below::USUAL);
        assert!(!page.contains("a</script>b") && page.contains("a\\u003c/script>b"));
        for placeholder in ["/*STYLE*/", "/*SCRIPT*/", "/*DATA*/"] {
            assert!(!page.contains(placeholder));
        }
        for outside in ["http:", "https:", "src=", "@import", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
        let (_, data) = page.split_once("id=\"data\">").unwrap();
        let data: Value = serde_json::from_str(data.split("</script>").next().unwrap()).unwrap();
        assert_eq!(data["snapshots"][0]["arenas"][1][0], "0x7f0000600000");
        assert_eq!(data["shades"]["1024"].as_array().unwrap().len(), 33);
    }
}
