//! Threads that take turns: the one that has the engine runs, the others wait.
//!
//! ```text
//!    main  ---- engine ---->  thread 3  ---- engine ---->  thread 1   ...
//!    waits                    waits                        runs
//! ```
//!
//! So one thread allocates a block and the next frees it, and threads end with blocks in their
//! magazines; and a run is reproducible. A thread that ends may keep some blocks, which its last
//! destructor frees, and allocate there.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, Once};
use std::thread::JoinHandle;

use crate::block::Block;
use crate::domain::Domain;
use crate::engine::{Engine, Next};
use crate::source::Source;

/// Maximum threads, with the main one.
pub const MOST: usize = 24;

/// The slot in which a waiting thread gets the engine.
pub struct Mailbox<S> {
    /// The engine; `Some(None)` ends the thread.
    letter: Mutex<Option<Option<Box<Engine<S>>>>>,
    there: Condvar,
}

impl<S: Source> Mailbox<S> {
    fn new() -> Arc<Mailbox<S>> {
        Arc::new(Mailbox {
            letter: Mutex::new(None),
            there: Condvar::new(),
        })
    }

    fn put(&self, letter: Option<Box<Engine<S>>>) {
        *self.letter.lock().unwrap() = Some(letter);
        self.there.notify_one();
    }

    fn take(&self) -> Option<Box<Engine<S>>> {
        let mut letter = self.letter.lock().unwrap();
        loop {
            match letter.take() {
                Some(letter) => return letter,
                None => letter = self.there.wait(letter).unwrap(),
            }
        }
    }
}

struct Member<S> {
    mailbox: Arc<Mailbox<S>>,
    /// None for the main thread.
    handle: Option<JoinHandle<()>>,
}

/// The threads of an engine, by number; 0 is the main one.
pub struct Turns<S> {
    members: Vec<Option<Member<S>>>,
    /// A thread that has ended, and the blocks that it leaves.
    gone: Option<(usize, Arc<Mutex<Vec<Block>>>)>,
}

impl<S: Source> Turns<S> {
    #[expect(clippy::new_without_default, reason = "a turns is no plain value")]
    pub fn new() -> Turns<S> {
        let main = Member {
            mailbox: Mailbox::new(),
            handle: None,
        };
        Turns {
            members: vec![Some(main)],
            gone: None,
        }
    }

    /// A waiting thread other than `me`, chosen by `bits`.
    pub fn other(&self, me: usize, bits: usize) -> Option<usize> {
        let there = |n: &usize| *n != me && self.members[*n].is_some();
        let others = (0..self.members.len()).filter(there).count();
        let others_there = (0..self.members.len()).filter(there);
        (others > 0).then(|| others_there.into_iter().nth(bits % others).unwrap())
    }

    /// Starts a thread, unless there are `MAX`. Returns its number.
    pub fn spawn(&mut self) -> Option<usize> {
        let number = match self.members.iter().position(Option::is_none) {
            Some(number) => number,
            None if self.members.len() < MOST => {
                self.members.push(None);
                self.members.len() - 1
            }
            None => return None,
        };
        let mailbox = Mailbox::new();
        let theirs = mailbox.clone();
        let builder = std::thread::Builder::new().stack_size(512 << 10);
        let handle = builder.spawn(move || serve(&theirs)).ok()?;
        self.members[number] = Some(Member {
            mailbox,
            handle: Some(handle),
        });
        Some(number)
    }

    /// In a forked child: `me` is the only thread.
    pub fn forget_others(&mut self, me: usize) {
        for (n, member) in self.members.iter_mut().enumerate() {
            if n != me {
                std::mem::forget(member.take());
            }
        }
    }

    /// Waits for the thread that has ended, and takes its blocks.
    pub fn see_off(&mut self) -> Vec<Block> {
        let Some((number, left)) = self.gone.take() else {
            return Vec::new();
        };
        let member = self.members[number].take();
        if let Some(handle) = member.and_then(|member| member.handle) {
            handle.join().expect("it ended well");
        }
        std::mem::take(&mut *left.lock().unwrap())
    }

    /// Ends all threads but the main one.
    pub fn end_all(&mut self) {
        for member in self.members.iter_mut().skip(1).filter_map(Option::take) {
            member.mailbox.put(None);
            if let Some(handle) = member.handle {
                handle.join().expect("it ended well");
            }
        }
        self.members.truncate(1);
    }

    fn mailbox(&self, number: usize) -> Arc<Mailbox<S>> {
        let member = self.members[number].as_ref();
        member.expect("a thread that is there").mailbox.clone()
    }
}

fn pass<S: Source>(mut engine: Box<Engine<S>>, to: usize) {
    engine.me = to;
    let mailbox = engine.turns.mailbox(to);
    mailbox.put(Some(engine));
}

/// The life of a thread other than the main one.
fn serve<S: Source>(mailbox: &Mailbox<S>) {
    while let Some(mut engine) = mailbox.take() {
        match engine.run() {
            Next::Pass(to) => pass(engine, to),
            Next::Done => {
                engine.end_child();
                engine.is_done = true;
                pass(engine, 0);
            }
            Next::Leave { to, blocks, ask } => {
                let left = Arc::new(Mutex::new(Vec::new()));
                at_last(Parting {
                    blocks,
                    ask,
                    left: left.clone(),
                });
                engine.turns.gone = Some((engine.me, left));
                return pass(engine, to);
            }
        }
    }
}

/// Runs the engine to its end, on the main thread.
pub fn drive<S: Source>(mut engine: Box<Engine<S>>) -> Box<Engine<S>> {
    let mailbox = engine.turns.mailbox(0);
    loop {
        match engine.run() {
            Next::Pass(to) => pass(engine, to),
            Next::Done => {
                engine.end_child();
                return engine;
            }
            Next::Leave { .. } => unreachable!("the main thread stays"),
        }
        engine = mailbox.take().expect("the engine comes back");
        if engine.is_done {
            return engine;
        }
    }
}

/// The work of a thread's last destructor: blocks to free, and sizes to allocate.
struct Parting {
    blocks: Vec<Block>,
    ask: Vec<usize>,
    left: Arc<Mutex<Vec<Block>>>,
}

static KEY: AtomicU32 = AtomicU32::new(0);

unsafe extern "C" fn part(parting: *mut core::ffi::c_void) {
    // SAFETY: the value that `at_last` stored.
    let parting = unsafe { Box::from_raw(parting.cast::<Parting>()) };
    for block in parting.blocks {
        block.verify();
        // SAFETY: a live block, used no more.
        unsafe { block.domain.free(block.p) };
    }
    let mut left = parting.left.lock().unwrap();
    for (n, len) in parting.ask.into_iter().enumerate() {
        let domain = [Domain::Mem, Domain::Obj][n % 2];
        // SAFETY: any size is valid.
        let p = unsafe { domain.malloc(len) };
        if !p.is_null() {
            let block = Block {
                p,
                len,
                serial: n as u32,
                domain,
                align: 8,
                full: true,
            };
            block.fill();
            left.push(block);
        }
    }
}

/// Does the work when this thread ends: after the library's own destructor, whose key is older.
fn at_last(parting: Parting) {
    static MADE: Once = Once::new();
    MADE.call_once(|| {
        let mut key = 0;
        // SAFETY: room for the key.
        let made = unsafe { libc::pthread_key_create(&raw mut key, Some(part)) };
        assert_eq!(made, 0);
        KEY.store(key, Relaxed);
    });
    let parting = Box::into_raw(Box::new(parting));
    // SAFETY: the key exists.
    unsafe { libc::pthread_setspecific(KEY.load(Relaxed), parting.cast()) };
}
