//! The operations, and the assertions after each.

use std::collections::{BTreeMap, VecDeque};

use crate::account;
use crate::block::{Block, are_zero};
use crate::domain::{Domain, pool_block};
use crate::history::{self, Did};
use crate::rare_ops::{Profile, Workload};
use crate::refusals;
use crate::settings::Settings;
use crate::sizes::Sizes;
use crate::source::Source;
use crate::turns::Turns;

/// Maximum size of a block that is written and read as a whole.
const FULL_MAX: usize = 64 << 10;

/// The depth of the checks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Care {
    /// Everything after each operation; every byte of each block.
    Paranoid,
    /// Some words of each block; every byte of some, everything now and then.
    Plain,
}

/// The end of a thread's turn.
pub enum Next {
    /// Another thread continues.
    Pass(usize),
    /// The thread ends, and another one continues.
    Leave {
        to: usize,
        blocks: Vec<Block>,
        ask: Vec<usize>,
    },
    /// The run ends.
    Done,
}

/// The model's state.
pub struct Engine<S> {
    pub source: S,
    pub settings: Settings,
    pub profile: &'static Profile,
    pub care: Care,
    /// The live blocks, roughly by age.
    pub blocks: VecDeque<Block>,
    /// Their bytes.
    pub bytes: usize,
    pub serial: u32,
    pub workload: Workload,
    /// The expected result of the library's count of blocks.
    pub count: isize,
    /// The addresses of live blocks, if overlaps are checked each time.
    spans: BTreeMap<usize, usize>,
    /// Calls of the library so far, and the number at which the run ends.
    pub calls: u64,
    pub limit: u64,
    pub turns: Turns<S>,
    /// The number of the thread that runs.
    pub me: usize,
    pub is_done: bool,
    /// Forks from the first process to this one.
    pub depth: u32,
}

impl<S: Source> Engine<S> {
    pub fn new(source: S, profile: &'static Profile, care: Care, limit: u64) -> Box<Engine<S>> {
        let settings = Settings::of_environment();
        // SAFETY: any size is valid, and the block is freed. (This first call sets the tables by the
        // settings.)
        unsafe { Domain::Obj.free(Domain::Obj.malloc(1)) };
        Box::new(Engine {
            source,
            settings,
            profile,
            care,
            blocks: VecDeque::new(),
            bytes: 0,
            serial: 0,
            workload: Workload::first(),
            count: account::blocks(),
            spans: BTreeMap::new(),
            calls: 0,
            limit,
            turns: Turns::new(),
            me: 0,
            is_done: false,
            depth: 0,
        })
    }

    pub fn is_child(&self) -> bool {
        self.depth > 0
    }

    pub fn is_paranoid(&self) -> bool {
        self.care == Care::Paranoid
    }

    /// This thread's turn.
    pub fn run(&mut self) -> Next {
        for block in self.turns.see_off() {
            self.count += 1;
            self.enter(block);
        }
        while self.calls < self.limit && self.source.has_more() {
            if let Some(next) = self.step() {
                return next;
            }
            if self.is_paranoid() {
                self.check();
            }
        }
        Next::Done
    }

    #[inline]
    fn step(&mut self) -> Option<Next> {
        match self.source.draw(1) {
            0..28 => self.realloc(),
            28..36 => self.calloc(),
            op @ 36..252 => {
                let full =
                    self.blocks.len() >= self.workload.most || self.bytes >= self.workload.bytes;
                if op < self.workload.split.into() && !full {
                    self.malloc();
                } else {
                    self.free();
                }
            }
            _ => return self.rare(),
        }
        None
    }

    /// A size, by the workload.
    #[inline]
    pub fn size(&mut self) -> usize {
        let bits = self.source.draw(2);
        self.workload.sizes.size(bits)
    }

    #[inline]
    fn domain(&mut self) -> Domain {
        match self.source.draw(1) {
            0..120 => Domain::Obj,
            120..236 => Domain::Mem,
            _ => Domain::Raw,
        }
    }

    #[inline]
    fn malloc(&mut self) {
        let (domain, n) = (self.domain(), self.size());
        self.malloc_of(domain, n);
    }

    /// Allocates `n` bytes, which may fail.
    #[inline]
    pub fn malloc_of(&mut self, domain: Domain, n: usize) -> bool {
        let struck = refusals::struck();
        // SAFETY: any size is valid.
        let p = unsafe { domain.malloc(n) };
        self.calls += 1;
        history::did(Did::Malloc, n, p.addr(), domain as usize);
        self.got(domain, p, n, struck)
    }

    fn calloc(&mut self) {
        let (domain, n) = (self.domain(), self.size());
        let elsize = match self.source.draw(1) as usize {
            0 => 0,
            elsize if n.is_multiple_of(elsize) => elsize,
            _ => 1,
        };
        let nelem = n.checked_div(elsize).unwrap_or(n);
        self.calloc_of(domain, nelem, elsize);
    }

    /// Allocates by calloc.
    pub fn calloc_of(&mut self, domain: Domain, nelem: usize, elsize: usize) {
        let struck = refusals::struck();
        // SAFETY: any sizes are valid.
        let p = unsafe { domain.calloc(nelem, elsize) };
        self.calls += 1;
        let n = nelem.checked_mul(elsize);
        history::did(
            Did::Calloc,
            n.unwrap_or(usize::MAX),
            p.addr(),
            domain as usize,
        );
        let Some(n) = n else {
            assert!(p.is_null(), "a product that overflows is refused");
            return;
        };
        if !p.is_null() {
            // SAFETY: within the new block.
            are_zero(unsafe { core::slice::from_raw_parts(p, n) });
        }
        self.got(domain, p, n, struck);
    }

    /// Enters a new block, or checks a NULL.
    #[inline]
    fn got(&mut self, domain: Domain, p: *mut u8, n: usize, struck: usize) -> bool {
        if p.is_null() {
            self.refused(n, struck);
            return false;
        }
        assert!(n <= isize::MAX as usize, "a size beyond PY_SSIZE_T_MAX");
        self.serial = self.serial.wrapping_add(1);
        let block = Block {
            p,
            len: n,
            serial: self.serial,
            domain,
            align: self.alignment(domain, n),
            full: self.is_full(n),
        };
        block.fill();
        self.count += isize::from(domain.is_counted());
        self.enter(block);
        true
    }

    fn is_full(&self, n: usize) -> bool {
        n <= FULL_MAX && (self.is_paranoid() || self.serial.is_multiple_of(32))
    }

    /// The alignment that is required.
    fn alignment(&self, domain: Domain, n: usize) -> u8 {
        let packed = match domain {
            Domain::Mem => self.settings.packed_mem,
            Domain::Obj => self.settings.packed_obj,
            Domain::Raw | Domain::Foreign => false,
        };
        let rounded = n.max(1).next_multiple_of(8);
        let is_odd = self.settings.debug || !rounded.is_multiple_of(16);
        if packed && n <= 512 && is_odd { 8 } else { 16 }
    }

    /// Asserts that there was a reason for a NULL.
    #[cold]
    fn refused(&self, n: usize, struck: usize) {
        let is_right = n >= 1 << 47 || refusals::struck() != struck || self.settings.limited;
        assert!(is_right, "NULL for {n} bytes, without a reason");
    }

    /// Enters a live block.
    #[inline]
    fn enter(&mut self, block: Block) {
        let address = block.p.addr();
        assert!(
            address.is_multiple_of(block.align.into()),
            "{:p} is not aligned to {}",
            block.p,
            block.align
        );
        if self.is_paranoid() {
            let end = address + block.len.max(1);
            if let Some((start, other)) = self.spans.range(..end).next_back() {
                assert!(
                    *other <= address,
                    "{address:#x} to {end:#x} overlaps {start:#x}"
                );
            }
            self.spans.insert(address, end);
        }
        self.bytes += block.len;
        self.blocks.push_back(block);
    }

    /// Removes a block, by the order of the workload.
    #[inline]
    pub fn pick(&mut self) -> Option<Block> {
        let len = self.blocks.len();
        let block = match self.workload.order {
            _ if len == 0 => return None,
            0 => self.blocks.pop_front(),
            1 => self.blocks.pop_back(),
            _ => {
                let at = (self.source.draw(3) as usize * len) >> 24;
                self.blocks.swap_remove_back(at)
            }
        }?;
        self.leave(&block);
        Some(block)
    }

    #[inline]
    fn leave(&mut self, block: &Block) {
        self.bytes -= block.len;
        if self.is_paranoid() {
            self.spans.remove(&block.p.addr());
        }
    }

    /// The domain that a block is passed to: MEM and OBJ accept each other's.
    fn taker(&mut self, block: &Block) -> Domain {
        let crosses = !self.settings.debug && block.serial % 16 == 5;
        match block.domain {
            Domain::Mem if crosses => Domain::Obj,
            Domain::Obj if crosses => Domain::Mem,
            domain => domain,
        }
    }

    #[inline]
    fn free(&mut self) {
        if let Some(block) = self.pick() {
            self.free_block(block);
        }
    }

    /// Frees a removed block.
    #[inline]
    pub fn free_block(&mut self, block: Block) {
        let taker = self.taker(&block);
        block.verify();
        history::did(Did::Free, block.len, block.p.addr(), taker as usize);
        // SAFETY: a live block, used no more.
        unsafe { taker.free(block.p) };
        self.calls += 1;
        // The library counts the free of a foreign block, but not its allocation.
        self.count -= isize::from(block.domain != Domain::Raw);
    }

    fn realloc(&mut self) {
        let Some(block) = self.pick() else {
            let n = self.size();
            // SAFETY: any size is valid.
            let struck = refusals::struck();
            let p = unsafe { Domain::Obj.realloc(core::ptr::null_mut(), n) };
            self.calls += 1;
            self.got(Domain::Obj, p, n, struck);
            return;
        };
        let bits = self.source.draw(2);
        let near = bits as usize >> 8;
        let n = match bits % 4 {
            0 => self.workload.sizes.size(bits.rotate_left(3)),
            1 => block.len + near / 4,
            2 => block.len.saturating_sub(near / 4),
            _ => block.len * (near + 1) / 128,
        };
        let block = self.realloc_block(block, n);
        self.enter(block);
    }

    /// Changes the size of a removed block.
    pub fn realloc_block(&mut self, mut block: Block, n: usize) -> Block {
        let (taker, struck, old) = (self.taker(&block), refusals::struck(), block.p);
        let in_pool = pool_block(old);
        // SAFETY: a live block.
        let p = unsafe { taker.realloc(old, n) };
        self.calls += 1;
        history::did(Did::Realloc, n, old.addr(), p.addr());
        if p.is_null() {
            self.refused(n, struck);
            // (The hook on RAW refuses any block.)
            let is_ours = in_pool.is_some() && taker != Domain::Raw && !self.settings.debug;
            let shrinks = is_ours && n <= block.len;
            assert!(!shrinks, "O2: a block that shrinks stays");
            block.verify();
            return block;
        }
        block.p = p;
        block.verify_up_to(n);
        if p != old || !self.settings.packed_mem && !self.settings.packed_obj {
            // A block that moves gets the alignment of the domain that moves it.
            let align = self.alignment(taker, n);
            block.align = if p == old {
                block.align.min(align)
            } else {
                align
            };
        }
        self.serial = self.serial.wrapping_add(1);
        (block.serial, block.len) = (self.serial, n);
        block.full = self.is_full(n);
        block.fill();
        block
    }

    /// Enters a removed block again.
    pub fn put(&mut self, block: Block) {
        self.enter(block);
    }

    /// Asserts everything.
    pub fn check(&self) {
        obmalloc::tests::model::check();
        let at_hand = obmalloc::tests::model::cached_blocks();
        for block in &self.blocks {
            let address = block.p.addr();
            assert!(
                at_hand.binary_search(&address).is_err(),
                "H1: {address:#x} is live and at hand"
            );
        }
        self.check_count();
        if self.calls.is_multiple_of(16) {
            account::check(self.settings.helper);
        }
        if self.calls.is_multiple_of(64) {
            self.verify_all();
        }
    }

    /// Asserts that the library's count of blocks is the model's.
    pub fn check_count(&self) {
        account::settles(
            self.settings.helper,
            &self.count,
            "allocated blocks",
            account::blocks,
        );
    }

    /// Asserts that the contents of every block are intact, and that no two blocks overlap.
    pub fn verify_all(&self) {
        let mut spans: Vec<_> = self
            .blocks
            .iter()
            .map(|block| {
                block.verify();
                (block.p.addr(), block.p.addr() + block.len.max(1))
            })
            .collect();
        spans.sort_unstable();
        for pair in spans.windows(2) {
            assert!(pair[0].1 <= pair[1].0, "{pair:#x?} overlap");
        }
    }

    /// Frees everything, ends all threads, and asserts that nothing is left.
    pub fn finish(&mut self) {
        history::did(Did::Finish, 0, 0, 0);
        refusals::disarm();
        self.verify_all();
        self.workload.order = (self.serial % 3) as u8;
        while let Some(block) = self.pick() {
            self.free_block(block);
        }
        self.check_count();
        obmalloc::tests::model::check();
        account::check(self.settings.helper);
        if self.is_child() {
            return;
        }
        self.turns.end_all();
        refusals::unhook_all();
        obmalloc::capi::extension::obmalloc_trim(0);
        if refusals::arenas_are_programs() {
            // A program's arenas are freed only by calls of the program, when a pool has become
            // empty: by this thread's, at its end.
            // SAFETY: a new block that is freed.
            let once = || unsafe { Domain::Obj.free(Domain::Obj.malloc(1)) };
            std::thread::spawn(once).join().expect("it ended well");
        }
        self.check();
        let programs = refusals::programs_arenas();
        // One empty arena of a program is kept.
        let kept = (programs.min(1), 0);
        account::settles(
            self.settings.helper,
            &kept,
            "arenas and pools",
            account::in_use,
        );
        if refusals::arenas_are_programs() && programs == 0 {
            refusals::change_arenas();
        }
    }

    /// Ends the process, if it is a forked child.
    pub fn end_child(&mut self) {
        if self.is_child() {
            self.finish();
            // SAFETY: the process ends.
            unsafe { libc::_exit(0) };
        }
    }

    /// Sizes of every kind, where the workload does not decide.
    pub fn edge(&mut self) -> usize {
        let bits = self.source.draw(2);
        Sizes::Edges.size(bits)
    }
}
