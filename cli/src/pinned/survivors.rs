//! The types of the blocks on nearly empty pages.

use std::collections::BTreeMap;

use crate::snapshot::Snapshot;
use crate::summary::Below;

/// The survivors by type.
pub struct Survivors {
    /// Blocks of known type on nearly empty pages.
    pub known: u64,
    /// Blocks of known type on all pages.
    pub known_anywhere: u64,
    /// The types, sorted by their number of pages, the largest first.
    pub types: Vec<Type>,
}

/// A type's blocks on nearly empty pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Type {
    pub name: String,
    pub blocks: u64,
    /// Pages with at least one block of the type, and those of them without a block of another.
    pub pages: u64,
    pub alone: u64,
}

impl Survivors {
    /// The survivors of a heap; `None` if the snapshot has no types.
    pub fn of(heap: &Snapshot, below: Below) -> Option<Survivors> {
        let types = heap.types.as_ref()?;
        let (mut known, mut known_anywhere) = (0, 0);
        let mut sums = BTreeMap::<usize, Type>::new();
        let mut pages = BTreeMap::<usize, Vec<usize>>::new();
        let page_is_low = |page| below.has(page, heap.in_os_page);
        let is_low = |&page: &usize| heap.pages.get(page).is_some_and(page_is_low);
        heap.each_group(types, |group| {
            known_anywhere += group.blocks;
            let low: Vec<usize> = group.pages.clone().filter(is_low).collect();
            if low.is_empty() {
                return;
            }
            known += group.blocks;
            let sum = sums.entry(group.name).or_insert_with(|| Type {
                name: types.names[group.name].clone(),
                blocks: 0,
                pages: 0,
                alone: 0,
            });
            sum.blocks += group.blocks;
            // A block keeps all of an OS page, which begins at a multiple of its size in the pool.
            for page in low {
                let pool = heap.pools.partition_point(|pool| pool.pages.end <= page);
                let start = heap.pools[pool].pages.start;
                let first = page - (page - start) % heap.in_os_page;
                for page in first..first + heap.in_os_page {
                    let on = pages.entry(page).or_default();
                    if !on.contains(&group.name) {
                        on.push(group.name);
                    }
                }
            }
        });
        for on in pages.values() {
            for name in on {
                sums.entry(*name).and_modify(|sum| {
                    sum.pages += 1;
                    sum.alone += u64::from(on.len() == 1);
                });
            }
        }
        let mut types: Vec<Type> = sums.into_values().collect();
        types.sort_by(|a, b| (b.pages, b.blocks, &a.name).cmp(&(a.pages, a.blocks, &b.name)));
        Some(Survivors {
            known,
            known_anywhere,
            types,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{Heap, Pool};

    #[test]
    fn pages_count_once_for_each_type_on_them() {
        let base = 0x7000_0000;
        let at = |n: u64| base + 48 + n * 64;
        // Blocks 1 and 2 on page 0, 100 on page 1, 127 on pages 1 and 2; all of page 3.
        let live = |n: u32| [1, 2, 100, 127].contains(&n) || (191..=255).contains(&n);
        let heap = Heap {
            arenas: vec![(base, vec![Pool::of(8, 64, live)])],
            types: Some((
                vec!["a", "b"],
                vec![
                    (at(1), 0),
                    (at(2), 1),
                    (at(100), 0),
                    (at(127), 0),
                    (at(200), 1),
                    (at(200) + 8, 0),
                    (0x9000_0000, 1),
                ],
            )),
            ..Heap::default()
        };
        let found = Survivors::of(&heap.read(), Below::USUAL).unwrap();
        assert_eq!((found.known, found.known_anywhere), (4, 5));
        let of = |name: &str, blocks, pages, alone| Type {
            name: name.into(),
            blocks,
            pages,
            alone,
        };
        assert_eq!(found.types, [of("a", 3, 3, 2), of("b", 1, 1, 0)]);
    }

    #[test]
    fn no_more_are_known_than_were_taken() {
        let base = 0x7000_0000;
        let at = |n: u64| base + 48 + n * 64;
        let live = |n: u32| [1, 2].contains(&n);
        let heap = Heap {
            arenas: vec![(base, vec![Pool::of(8, 64, live)])],
            types: Some((vec!["a"], (1..40).map(|n| (at(n), 0)).collect())),
            ..Heap::default()
        };
        let found = Survivors::of(&heap.read(), Below::USUAL).unwrap();
        assert_eq!((found.known, found.known_anywhere), (2, 2));
        assert_eq!(found.types[0].blocks, 2);
    }

    #[test]
    fn a_block_keeps_all_of_an_os_page() {
        let base = 0x7000_0000;
        let heap = Heap {
            arenas: vec![(base, vec![Pool::of(8, 64, |n| n == 100).on_os_pages(4)])],
            types: Some((vec!["a"], vec![(base + 48 + 100 * 64, 0)])),
            os_page: 16384,
            ..Heap::default()
        };
        let found = Survivors::of(&heap.read(), Below::USUAL).unwrap();
        let only = (
            found.types[0].blocks,
            found.types[0].pages,
            found.types[0].alone,
        );
        assert_eq!(only, (1, 4, 4));
    }
}
