//! The report of a memory error: its kind, its place, its stack, and the stacks of the allocation and
//! the free of the block. A line each, formatted without allocating.
//!
//! ```text
//!   obmalloc: use after free: read of address 0x7f21c0ffe008, 8 bytes into ...
//!   obmalloc:   read by thread 4711:
//!   obmalloc:     #0 /usr/lib/x.so+0x1139 (x_read+0x9)
//!   obmalloc:     File "x.py", line 3, in f
//!   obmalloc:   allocated by thread 4711:       and so on
//! ```
//!
//! A report has parts. After a fault in one, for instance because a frame is corrupted, the fault
//! handler continues with the next part.

use core::cell::UnsafeCell;

use super::native::{self, Place};
use super::reporter::{self, Reporter};
use super::slack::Corruption;
use super::slots::{SLOTS, Slot, State};
use super::trace::{self, Trace};
use crate::inspect::frames::{self, Gil};
use crate::os::text::{self, log};
use crate::os::wait;
use crate::sync::{AtomicU32, Ordering::Relaxed};

/// The access that is an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Access {
    /// By an instruction.
    Read,
    Write,
    Run,
    /// By an instruction of unknown kind.
    Unknown,
    /// By a call.
    Free,
    Realloc,
    /// By a write some time before this call.
    CorruptionFoundByFree(Corruption),
}

impl Access {
    pub(super) fn word(self) -> &'static str {
        match self {
            Access::Read => "read",
            Access::Write => "write",
            Access::Run => "jump",
            Access::Unknown => "access",
            Access::Free | Access::CorruptionFoundByFree(_) => "free",
            Access::Realloc => "realloc",
        }
    }
}

/// A memory error.
#[derive(Clone, Copy)]
pub(super) struct MemoryError {
    pub(super) access: Access,
    pub(super) address: usize,
    /// The address of the instruction, if it was one.
    pub(super) instruction: Option<usize>,
}

/// The report that is being written.
struct Current {
    mistake: MemoryError,
    slot: Option<&'static Slot>,
    state: State,
    frames: [usize; 40],
}

struct Cell(UnsafeCell<Current>);
// SAFETY: only the reporter uses it, while it writes.
unsafe impl Sync for Cell {}

static CURRENT: Cell = Cell(UnsafeCell::new(Current {
    mistake: MemoryError {
        access: Access::Unknown,
        address: 0,
        instruction: None,
    },
    slot: None,
    state: State::Unused,
    frames: [0; 40],
}));
/// The next part of its report.
static PART: AtomicU32 = AtomicU32::new(0);

/// Maximum reports of a process: an error in a loop must not fill a disk.
const REPORTS_MAX: u32 = 50;
static REPORTS: AtomicU32 = AtomicU32::new(0);

/// Times that a thread tries the slots' lock, which it may hold itself.
const TRIES: u32 = 1000;

/// Reports a memory error.
pub(super) fn report(reporter: &Reporter, mistake: MemoryError) {
    if REPORTS.fetch_add(1, Relaxed) >= REPORTS_MAX {
        return;
    }
    reporter.says(|| {
        // SAFETY: this thread is the reporter, and writes.
        let current = unsafe { &mut *CURRENT.0.get() };
        current.mistake = mistake;
        (current.slot, current.state) = pin_nearest(mistake.address);
        PART.store(0, Relaxed);
        say_parts();
    });
}

/// Continues the report that this thread was writing when it faulted. False if it was writing none.
pub(super) fn go_on() -> bool {
    let is_own = reporter::is_saying();
    if is_own {
        log(format_args!("    (the report itself faulted here)"));
        say_parts();
        reporter::has_said();
    }
    is_own
}

fn pin_nearest(address: usize) -> (Option<&'static Slot>, State) {
    for _ in 0..TRIES {
        if let Some(slots) = SLOTS.try_lock() {
            let slot = slots.nearest(address).map(|i| slots.slot(i));
            if let Some(slot) = slot {
                slot.pin();
            }
            return (slot, slot.map_or(State::Unused, Slot::state));
        }
        wait::pause(50);
    }
    (None, State::Unused)
}

/// Writes the parts that are left.
fn say_parts() {
    // SAFETY: this thread is the reporter, and writes.
    let current = unsafe { &mut *CURRENT.0.get() };
    loop {
        match PART.fetch_add(1, Relaxed) {
            0 => current.say_what(),
            1 => current.say_native(),
            2 => current.say_python(),
            3 => current.say_allocated(),
            4 => current.say_freed(),
            _ => break,
        }
    }
    if let Some(slot) = current.slot {
        slot.unpin();
    }
}

impl Current {
    fn say_what(&self) {
        let MemoryError {
            access, address, ..
        } = self.mistake;
        let word = access.word();
        let pid = text::pid();
        let Some(slot) = self.slot else {
            log(format_args!(
                "{word} of {address:#x}, a guard page where no block was (pid {pid})"
            ));
            return;
        };
        let (block, n) = slot.block();
        let is_freed_now = matches!(access, Access::CorruptionFoundByFree(_));
        let is_free = matches!(self.state, State::Freed | State::Dying) && !is_freed_now;
        let what = match access {
            Access::CorruptionFoundByFree(Corruption::After(_)) => "overflow",
            Access::CorruptionFoundByFree(Corruption::Before(_)) => "underflow",
            Access::Free if is_free && address == block => "double free",
            _ if is_free => "use after free",
            Access::Free | Access::Realloc => "no block",
            _ if address < block => "underflow",
            _ => "overflow",
        };
        let kind = if is_free { "freed block" } else { "block" };
        let (distance, place) = match access {
            Access::CorruptionFoundByFree(Corruption::After(d)) => (d, "after"),
            Access::CorruptionFoundByFree(Corruption::Before(d)) => (d, "before"),
            _ if address < block => (block - address, "before"),
            _ if address >= block + n.max(1) => (address - block - n, "after"),
            _ => (address - block, "into"),
        };
        if let Access::CorruptionFoundByFree(_) = access {
            log(format_args!(
                "{what}: written {distance} bytes {place} the {kind} of {n} bytes at {block:#x}, \
                 seen when it is freed (pid {pid})"
            ));
        } else {
            log(format_args!(
                "{what}: {word} of {address:#x}, {distance} bytes {place} the {kind} of {n} bytes \
                 at {block:#x} (pid {pid})"
            ));
        }
    }

    fn say_native(&mut self) {
        let (word, thread) = (self.mistake.access.word(), trace::this_thread());
        log(format_args!("  {word} by thread {thread}:"));
        let count = native::unwind(&mut self.frames);
        let frames = &self.frames[..count];
        let Some(instruction) = self.mistake.instruction else {
            say_frames(native::without_ours(frames));
            return;
        };
        // The frames before it belong to the handler.
        match frames.iter().position(|&frame| frame == instruction) {
            Some(first) => {
                say_frame(0, instruction);
                for (i, &frame) in frames[first..].iter().enumerate().skip(1) {
                    say_frame(i, frame.wrapping_sub(1));
                }
            }
            None => {
                say_frame(0, instruction);
                say_frames(native::without_ours(frames));
            }
        }
    }

    fn say_python(&self) {
        let gil = match self.mistake.instruction {
            Some(_) => Gil::Any,
            None => Gil::Held,
        };
        frames::each_line(gil, trace::PYTHON_FRAMES, |line| {
            log(format_args!("    {line}"));
        });
    }

    fn say_allocated(&self) {
        if let Some(slot) = self.slot {
            // SAFETY: the slot is pinned (GUARD-3).
            say_trace("allocated", unsafe { slot.allocated() });
        }
    }

    fn say_freed(&self) {
        if let Some(slot) = self.slot
            && self.state == State::Freed
        {
            // SAFETY: the slot is pinned and was freed before (GUARD-3).
            say_trace("freed", unsafe { slot.freed() });
        }
    }
}

fn say_trace(access: &str, trace: &Trace) {
    if trace.thread == 0 {
        return log(format_args!(
            "  {access} in a sandbox, by a thread that is not known"
        ));
    }
    log(format_args!("  {access} by thread {}:", trace.thread));
    say_frames(trace.frames());
    for line in trace.lines() {
        log(format_args!("    {line}"));
    }
}

/// Writes native frames, by their return addresses.
fn say_frames(frames: &[usize]) {
    for (i, frame) in frames.iter().enumerate() {
        say_frame(i, frame.wrapping_sub(1));
    }
}

fn say_frame(i: usize, address: usize) {
    log(format_args!("    #{i} {}", Place(address)));
}
