//! Concurrent threads, each with a model of its own, that hand blocks to each other. The order is
//! not reproducible; the assertions hold in every order.

use std::sync::Mutex;

use obmalloc::capi::extension;

use crate::account;
use crate::block::{Block, are_zero};
use crate::domain::Domain;
use crate::rare_ops::wait_for;
use crate::sizes::Sizes;
use crate::source::Random;

/// The parameters of the concurrent threads.
pub struct Plan {
    pub threads: usize,
    /// Calls of each thread.
    pub calls: u64,
    pub seed: u64,
    pub sizes: Sizes,
    /// Requests may fail.
    pub limited: bool,
    /// Every byte of each block is checked.
    pub full: bool,
    /// A thread may fork.
    pub may_fork: bool,
    /// MEM and OBJ accept each other's blocks.
    pub may_cross: bool,
}

/// The result of the threads.
pub struct Outcome {
    pub blocks: Vec<Block>,
    pub calls: u64,
}

/// Maximum blocks of a thread.
const MOST: usize = 3000;

struct Thread<'a> {
    plan: &'a Plan,
    random: Random,
    number: usize,
    blocks: Vec<Block>,
    serial: u32,
    calls: u64,
    /// The blocks that are handed over.
    exchange: &'a Mutex<Vec<Block>>,
}

/// Runs the threads.
pub fn run(plan: &Plan) -> Outcome {
    let exchange = Mutex::new(Vec::new());
    let mut outcome = Outcome {
        blocks: Vec::new(),
        calls: 0,
    };
    std::thread::scope(|scope| {
        let start = |number: usize| {
            let exchange = &exchange;
            scope.spawn(move || {
                let mut thread = Thread {
                    plan,
                    random: Random::new(plan.seed << 8 ^ number as u64),
                    number,
                    blocks: Vec::new(),
                    serial: (number as u32 + 1) << 24,
                    calls: 0,
                    exchange,
                };
                while thread.calls < plan.calls {
                    thread.step();
                }
                (thread.blocks, thread.calls)
            })
        };
        let threads: Vec<_> = (0..plan.threads).map(start).collect();
        for thread in threads {
            let (blocks, calls) = thread.join().expect("it ended well");
            outcome.blocks.extend(blocks);
            outcome.calls += calls;
        }
    });
    outcome.blocks.extend(exchange.into_inner().unwrap());
    outcome
}

impl Thread<'_> {
    fn step(&mut self) {
        match self.random.below(1024) {
            0..400 if self.blocks.len() < MOST => self.malloc(),
            0..800 => self.free(),
            800..960 => self.realloc(),
            960..990 => self.hand_over(),
            990..1020 => self.take_over(),
            1020..1023 => self.seldom(),
            _ => self.drop_most(),
        }
    }

    fn size(&mut self) -> usize {
        let bits = self.random.word() as u32;
        self.plan.sizes.size(bits)
    }

    fn malloc(&mut self) {
        let (n, bits) = (self.size(), self.random.word());
        let domain = [Domain::Mem, Domain::Obj][bits as usize % 2];
        let zero = bits >> 8 & 7 == 0;
        // SAFETY: any size is valid.
        let p = unsafe {
            if zero {
                domain.calloc(1, n)
            } else {
                domain.malloc(n)
            }
        };
        self.calls += 1;
        if p.is_null() {
            assert!(
                self.plan.limited,
                "NULL for {n} bytes in a concurrent thread"
            );
            return;
        }
        if zero {
            // SAFETY: within the new block.
            are_zero(unsafe { core::slice::from_raw_parts(p, n) });
        }
        let serial = self.next_serial();
        let block = Block {
            p,
            len: n,
            serial,
            domain,
            align: 8,
            full: self.plan.full || serial.is_multiple_of(32) && n <= 4096,
        };
        assert!(p.addr().is_multiple_of(8));
        block.fill();
        self.blocks.push(block);
    }

    fn next_serial(&mut self) -> u32 {
        self.serial = self.serial & 0xff00_0000 | (self.serial + 1) & 0x00ff_ffff;
        self.serial
    }

    fn pick(&mut self) -> Option<Block> {
        if self.blocks.is_empty() {
            return None;
        }
        let at = self.random.below(self.blocks.len());
        Some(self.blocks.swap_remove(at))
    }

    fn free(&mut self) {
        if let Some(block) = self.pick() {
            self.free_block(block);
        }
    }

    fn free_block(&mut self, block: Block) {
        block.verify();
        let domain = match block.domain {
            Domain::Mem if self.plan.may_cross && block.serial.is_multiple_of(8) => Domain::Obj,
            domain => domain,
        };
        // SAFETY: a live block, used no more.
        unsafe { domain.free(block.p) };
        self.calls += 1;
    }

    fn realloc(&mut self) {
        let Some(mut block) = self.pick() else {
            return;
        };
        let n = match self.random.below(3) {
            0 => self.size(),
            1 => block.len + self.random.below(64),
            _ => block.len - self.random.below(block.len.min(64) + 1),
        };
        // SAFETY: a live block.
        let p = unsafe { block.domain.realloc(block.p, n) };
        self.calls += 1;
        if p.is_null() {
            assert!(
                self.plan.limited,
                "NULL for {n} bytes in a concurrent thread"
            );
        } else {
            block.p = p;
            block.verify_up_to(n);
            (block.len, block.serial) = (n, self.next_serial());
            block.full = block.full && (self.plan.full || n <= 4096);
            block.fill();
        }
        self.blocks.push(block);
    }

    fn hand_over(&mut self) {
        let n = self.random.below(64).min(self.blocks.len());
        let from = self.blocks.len() - n;
        let mut exchange = self.exchange.lock().unwrap();
        exchange.extend(self.blocks.drain(from..));
    }

    fn take_over(&mut self) {
        let n = self.random.below(64);
        let mut exchange = self.exchange.lock().unwrap();
        let from = exchange.len().saturating_sub(n);
        let taken: Vec<_> = exchange.drain(from..).collect();
        drop(exchange);
        for block in taken {
            block.verify();
            if self.blocks.len() < MOST {
                self.blocks.push(block);
            } else {
                self.free_block(block);
            }
        }
    }

    fn drop_most(&mut self) {
        let keep = self.blocks.len() / 8;
        while self.blocks.len() > keep {
            self.free();
        }
    }

    fn seldom(&mut self) {
        match self.random.below(16) {
            0 => {
                extension::obmalloc_trim(self.random.below(1 << 20));
            }
            1 => obmalloc::tests::model::check(),
            2 => {
                account::json();
            }
            3 if self.plan.may_fork && self.number == 0 => self.fork(),
            _ => {}
        }
    }

    fn fork(&mut self) {
        // SAFETY: the child uses the blocks of this thread, and ends by `_exit`.
        let child = unsafe { libc::fork() };
        if child > 0 {
            return wait_for(child);
        }
        if child < 0 {
            return;
        }
        // SAFETY: no preconditions; the alarm ends a child that hangs.
        unsafe { libc::alarm(300) };
        obmalloc::tests::model::check();
        self.blocks.iter().for_each(Block::verify);
        for _ in 0..300 {
            self.malloc();
            self.realloc();
            self.free();
        }
        while let Some(block) = self.pick() {
            self.free_block(block);
        }
        obmalloc::tests::model::check();
        // SAFETY: the process ends.
        unsafe { libc::_exit(0) };
    }
}
