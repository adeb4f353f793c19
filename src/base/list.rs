//! An intrusive doubly linked list: it allocates nothing, and a member is removed in constant time.
//!
//! Members are records that live as long as the process (descriptors of pools, records of arenas),
//! hence `&'static`, hence no unsafe code. A member is on one list at a time, and the caller names
//! that list to remove it.
#![forbid(unsafe_code)]

use crate::sync::Cell;

/// The links of a member. All zero bytes: on no list.
pub(crate) struct Links<T: 'static> {
    next: Cell<Option<&'static T>>,
    previous: Cell<Option<&'static T>>,
}

/// A type whose values can be on a [`List`].
pub(crate) trait Linked: Sized + 'static {
    fn links(&self) -> &Links<Self>;
}

/// The list: a pointer to its first member.
pub(crate) struct List<T: 'static> {
    first: Cell<Option<&'static T>>,
}

impl<T: Linked> List<T> {
    /// An empty list.
    pub(crate) const fn new() -> List<T> {
        List {
            first: Cell::new(None),
        }
    }

    #[inline]
    pub(crate) fn first(&self) -> Option<&'static T> {
        self.first.get()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &'static T> {
        core::iter::successors(self.first(), |member| member.links().next.get())
    }

    /// Puts `member`, which is on no list, at the front.
    pub(crate) fn push(&self, member: &'static T) {
        let links = member.links();
        debug_assert!(links.next.get().is_none() && links.previous.get().is_none());
        let second = self.first.replace(Some(member));
        if let Some(second) = second {
            second.links().previous.set(Some(member));
        }
        links.next.set(second);
    }

    /// Takes the first member off.
    pub(crate) fn pop(&self) -> Option<&'static T> {
        let first = self.first()?;
        self.remove(first);
        Some(first)
    }

    /// Moves all members of `other` behind this list's own. Takes time in the length of this list.
    pub(crate) fn append(&self, other: &List<T>) {
        let rest = other.first.take();
        match self.iter().last() {
            Some(last) => {
                last.links().next.set(rest);
                if let Some(rest) = rest {
                    rest.links().previous.set(Some(last));
                }
            }
            None => self.first.set(rest),
        }
    }

    /// Takes `member`, which is on this list, off it.
    pub(crate) fn remove(&self, member: &'static T) {
        let links = member.links();
        let (next, previous) = (links.next.take(), links.previous.take());
        match previous {
            Some(previous) => previous.links().next.set(next),
            None => self.first.set(next),
        }
        if let Some(next) = next {
            next.links().previous.set(previous);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::*;

    struct Node(u32, Links<Node>);

    impl Linked for Node {
        fn links(&self) -> &Links<Node> {
            &self.1
        }
    }

    fn node(n: u32) -> &'static Node {
        let links = Links {
            next: Cell::new(None),
            previous: Cell::new(None),
        };
        Box::leak(Box::new(Node(n, links)))
    }

    fn members(list: &List<Node>) -> Vec<u32> {
        list.iter().map(|node| node.0).collect()
    }

    #[test]
    fn members_are_removed_from_any_place() {
        let list: List<Node> = List::new();
        let nodes: Vec<_> = (0..5).map(node).collect();
        for &node in &nodes {
            list.push(node);
        }
        assert_eq!(members(&list), [4, 3, 2, 1, 0]);
        list.remove(nodes[2]);
        assert_eq!(members(&list), [4, 3, 1, 0]);
        list.remove(nodes[4]);
        list.remove(nodes[0]);
        assert_eq!(members(&list), [3, 1]);
        list.push(nodes[2]);
        assert_eq!(members(&list), [2, 3, 1]);
        assert_eq!(list.pop().map(|node| node.0), Some(2));
        list.pop();
        list.pop();
        assert!(list.pop().is_none());
    }
}
