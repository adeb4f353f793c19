//! aarch64, little-endian.
//!
//! Neither BTI nor PAC changes anything here: objects that are not marked for BTI run without it, and
//! no function uses a return address after it was signed.

use core::ffi::{c_int, c_long};
use core::{mem, ptr, slice};

use super::{Access, PageFault};

/// Relocation types of the dynamic linker.
pub(crate) mod relocation {
    pub(crate) const ABSOLUTE: u64 = 257; // R_AARCH64_ABS64
    pub(crate) const GLOB_DAT: u64 = 1025;
    pub(crate) const JUMP_SLOT: u64 = 1026;
    pub(crate) const RELATIVE: u64 = 1027;
}

/// Text for `global_asm!`: a jump to what follows.
macro_rules! jump {
    () => {
        "b "
    };
}
pub(crate) use jump;

/// Text for `global_asm!`: an instruction that ends the process.
#[cfg(not(panic = "unwind"))]
macro_rules! trap {
    () => {
        "udf #0"
    };
}
#[cfg(not(panic = "unwind"))]
pub(crate) use trap;

/// Text for `asm!`: loads the GOT's entry of the symbol `$name` to the register `address`.
#[cfg(not(miri))]
macro_rules! load_got_entry {
    ($name:literal) => {
        concat!(
            concat!("adrp {address}, :got:", $name, "\n"),
            concat!("ldr {address}, [{address}, #:got_lo12:", $name, "]")
        )
    };
}
#[cfg(not(miri))]
pub(crate) use load_got_entry;

/// The body of a function that jumps to the one at `$offset` in the table that the atomic pointer
/// `$route` leads to, with all arguments and the return address unchanged.
///
/// The load is an Acquire: the functions read statics that were written before `$route`, and a jump
/// does not order their loads behind this one.
macro_rules! jump_through {
    ($route:path, $offset:expr) => {
        core::arch::naked_asm!(
            "adrp x16, {route}",
            "add x16, x16, #:lo12:{route}",
            "ldar x16, [x16]",
            "ldr x16, [x16, #{offset}]",
            "br x16",
            route = sym $route,
            offset = const $offset,
        )
    };
}
pub(crate) use jump_through;

/// The body of a function that jumps to the one at `$offset` in the table that `$which` returns for
/// the return address, with up to two arguments and the return address unchanged.
macro_rules! jump_by {
    ($which:path, $offset:expr) => {
        core::arch::naked_asm!(
            ".cfi_startproc",
            "stp x29, x30, [sp, #-32]!",
            ".cfi_def_cfa_offset 32",
            ".cfi_offset x29, -32",
            ".cfi_offset x30, -24",
            "mov x29, sp",
            "stp x0, x1, [sp, #16]",
            "mov x0, x30",
            "bl {which}",
            "mov x16, x0",
            "ldp x0, x1, [sp, #16]",
            "ldp x29, x30, [sp], #32",
            ".cfi_def_cfa_offset 0",
            ".cfi_restore x29",
            ".cfi_restore x30",
            "ldr x16, [x16, #{offset}]",
            "br x16",
            ".cfi_endproc",
            which = sym $which,
            offset = const $offset,
        )
    };
}
pub(crate) use jump_by;

/// The body of a function that calls `$function` with its own return address.
#[cfg(not(test))]
macro_rules! pass_return_address {
    ($function:path) => {
        core::arch::naked_asm!(
            "mov x0, x30",
            "b {function}",
            function = sym $function,
        )
    };
}
#[cfg(not(test))]
pub(crate) use pass_return_address;

/// The thread word: its offset from the GOT, then its value relative to the thread pointer.
#[cfg(not(target_env = "musl"))]
#[inline(always)]
pub(crate) fn thread_word() -> *mut () {
    let word: *mut ();
    // SAFETY: reads thread-local storage that every thread has. `readonly`, not `nomem`:
    // `set_thread_word` changes it.
    unsafe {
        core::arch::asm!(
            "mrs {pointer}, tpidr_el0",
            "adrp {word}, :gottprel:obmalloc_thread_word",
            "ldr {word}, [{word}, #:gottprel_lo12:obmalloc_thread_word]",
            "ldr {word}, [{pointer}, {word}]",
            pointer = out(reg) _,
            word = out(reg) word,
            options(pure, readonly, nostack, preserves_flags)
        );
    }
    word
}

/// The thread word by its offset if that is known, else by the function of its descriptor.
#[cfg(target_env = "musl")]
#[inline(always)]
pub(crate) fn thread_word() -> *mut () {
    let word: *mut ();
    // SAFETY: reads thread-local storage that every thread has. The descriptor's function returns
    // the word's offset in x0 and changes no other register but x30; the stack is as before
    // afterwards. `readonly`, not `nomem`: `set_thread_word` changes the word.
    unsafe {
        core::arch::asm!(
            "adrp x16, {offset}",
            "ldr x16, [x16, #:lo12:{offset}]",
            "cbz x16, 3f",
            "2: mrs x17, tpidr_el0",
            "ldr x16, [x17, x16]",
            ".pushsection .text.unlikely.obmalloc_thread_word,\"ax\",@progbits",
            "3: stp x0, x1, [sp, #-32]!",
            "str x30, [sp, #16]",
            "adrp x0, :tlsdesc:obmalloc_thread_word",
            "ldr x1, [x0, #:tlsdesc_lo12:obmalloc_thread_word]",
            "add x0, x0, #:tlsdesc_lo12:obmalloc_thread_word",
            ".tlsdesccall obmalloc_thread_word",
            "blr x1",
            "mov x16, x0",
            "ldr x30, [sp, #16]",
            "ldp x0, x1, [sp], #32",
            "b 2b",
            ".popsection",
            offset = sym super::OFFSET,
            out("x16") word,
            out("x17") _,
            options(pure, readonly, nostack)
        );
    }
    word
}

/// Sets the thread word. Returns its offset, and its descriptor, which in a program is the offset.
///
/// # Safety
/// The value is valid for the readers of [`thread_word`].
#[cfg(target_env = "musl")]
pub(super) unsafe fn set_by_descriptor(word: *mut ()) -> (usize, *const [usize; 2]) {
    let (offset, descriptor);
    // SAFETY: the descriptor's function returns the word's offset in x0 and changes no other
    // register but x30. Writes thread-local storage that every thread has; the value is valid by
    // the contract above.
    unsafe {
        core::arch::asm!(
            "adrp x0, :tlsdesc:obmalloc_thread_word",
            "ldr x1, [x0, #:tlsdesc_lo12:obmalloc_thread_word]",
            "add x0, x0, #:tlsdesc_lo12:obmalloc_thread_word",
            "mov {descriptor}, x0",
            ".tlsdesccall obmalloc_thread_word",
            "blr x1",
            "mrs x1, tpidr_el0",
            "str {word}, [x1, x0]",
            out("x0") offset,
            out("x1") _,
            out("x30") _,
            descriptor = out(reg) descriptor,
            word = in(reg) word,
        );
    }
    (offset, descriptor)
}

/// Sets the thread word.
///
/// # Safety
/// The value is valid for the readers of [`thread_word`].
#[cfg(not(target_env = "musl"))]
#[inline(always)]
pub(crate) unsafe fn set_thread_word(word: *mut ()) {
    // SAFETY: writes thread-local storage that every thread has; the value is valid by the contract
    // above. Without `pure` and `readonly` the compiler keeps it apart from reads of the word.
    unsafe {
        core::arch::asm!(
            "mrs {pointer}, tpidr_el0",
            "adrp {offset}, :gottprel:obmalloc_thread_word",
            "ldr {offset}, [{offset}, #:gottprel_lo12:obmalloc_thread_word]",
            "str {word}, [{pointer}, {offset}]",
            pointer = out(reg) _,
            offset = out(reg) _,
            word = in(reg) word,
            options(nostack, preserves_flags)
        );
    }
}

/// The address of the thread's control block, which the thread pointer is.
#[inline(always)]
pub(crate) fn control_block() -> usize {
    let block: usize;
    // SAFETY: reads a register.
    unsafe {
        core::arch::asm!(
            "mrs {block}, tpidr_el0",
            block = out(reg) block,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    block
}

/// A system call by number. Returns the kernel's result; an error number is negative.
///
/// # Safety
/// The arguments are sound for the call, which neither returns twice nor changes memory that Rust
/// owns.
#[inline(always)]
pub(crate) unsafe fn syscall(number: c_long, [a, b, c, d]: [usize; 4]) -> isize {
    let answer: isize;
    // SAFETY: the kernel's calling convention; the arguments are sound by the contract above.
    unsafe {
        core::arch::asm!(
            "svc #0",
            in("x8") number,
            inlateout("x0") a => answer,
            in("x1") b,
            in("x2") c,
            in("x3") d,
            options(nostack)
        );
    }
    answer
}

/// Starts a thread by the kernel's `clone` that calls `function(argument)` on the stack that ends at
/// `top`, and exits. Returns the kernel's result. `word` is for CLONE_PARENT_SETTID and
/// CLONE_CHILD_CLEARTID.
///
/// # Safety
/// The stack is large enough for `function` and, as what `argument` points to, used by nothing else
/// until the thread has ended; its registers are copies of the caller's, so `function` uses no
/// thread-local storage.
#[inline(always)]
pub(crate) unsafe fn run_apart<T>(
    flags: c_int,
    top: *mut u8,
    word: *mut u32,
    function: extern "C" fn(*mut T),
    argument: *mut T,
) -> isize {
    let answer: isize;
    // SAFETY: the new thread leaves this code by a system call only; the stack and the argument are
    // its own by the contract above.
    unsafe {
        core::arch::asm!(
            "svc #0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x30, xzr",
            "mov x0, x20",
            "blr x21",
            "mov x0, xzr",
            "mov x8, {exit}",
            "svc #0",
            "udf #0",
            "2:",
            exit = const libc::SYS_exit,
            in("x8") libc::SYS_clone,
            inlateout("x0") flags as usize => answer,
            in("x1") top,
            in("x2") word,
            in("x3") 0usize,
            in("x4") word,
            in("x20") argument,
            in("x21") function,
        );
    }
    answer
}

/// Loads entry `i` of a table.
///
/// # Safety
/// The table has more than `i` entries, and is mapped.
#[inline(always)]
pub(crate) unsafe fn load_u16(table: *const u16, i: usize) -> usize {
    let entry: usize;
    // SAFETY: loads entry `i`, which the table has by the contract above, and nothing else. An
    // aligned load is atomic.
    unsafe {
        core::arch::asm!(
            "ldrh {entry:w}, [{table}, {i}, lsl #1]",
            entry = lateout(reg) entry,
            table = in(reg) table,
            i = in(reg) i,
            options(pure, readonly, nostack, preserves_flags)
        );
    }
    entry
}

/// A client request to a Valgrind tool: a code and five arguments. 0 without a tool.
#[inline(always)]
pub(crate) fn tool_request(words: &[usize; 6]) -> usize {
    let mut answer = 0usize;
    // SAFETY: rotates a register by 128 bits in all, which changes nothing. A tool reads the words
    // and returns its result in x3.
    unsafe {
        core::arch::asm!(
            "ror x12, x12, #3",
            "ror x12, x12, #13",
            "ror x12, x12, #51",
            "ror x12, x12, #61",
            "orr x10, x10, x10",
            in("x4") words.as_ptr(),
            inout("x3") answer,
            options(nostack)
        );
    }
    answer
}

/// The page fault that the kernel saved the registers of, if it was one.
///
/// A signal that is raised in the handler of a fault still has the address and the syndrome of
/// the fault, but not its instruction.
pub(crate) fn page_fault(context: &libc::ucontext_t, info: &libc::siginfo_t) -> Option<PageFault> {
    /// Exception classes: from the same process, reading code, and reading or writing data.
    const FETCH: u64 = 0x20;
    const DATA: u64 = 0x24;
    const WRITE: u64 = 1 << 6;
    /// A cache's maintenance, which counts as a write.
    const CACHE: u64 = 1 << 8;
    let machine = &context.uc_mcontext;
    let instruction = machine.pc as usize;
    let Some(syndrome) = syndrome(records(machine)) else {
        // A fault has a positive code. Emulators may leave the record out.
        return (info.si_code > 0).then(|| PageFault {
            access: Access::Unknown,
            // SAFETY: the kernel sets the address for each fault.
            address: unsafe { info.si_addr() }.addr(),
            instruction,
        });
    };
    let access = match syndrome >> 26 & 0x3f {
        FETCH => Access::Run,
        DATA if syndrome & (WRITE | CACHE) == WRITE => Access::Write,
        DATA => Access::Read,
        _ => return None,
    };
    Some(PageFault {
        access,
        address: machine.fault_address as usize,
        instruction,
    })
}

/// The records behind the registers, which begin at a multiple of 16 bytes.
fn records(machine: &libc::mcontext_t) -> &[u64] {
    const BEGIN: usize = (mem::offset_of!(libc::mcontext_t, pstate) + 8).next_multiple_of(16);
    const WORDS: usize = 4096 / size_of::<u64>();
    const { assert!(size_of::<libc::mcontext_t>() == BEGIN + size_of::<[u64; WORDS]>()) };
    // SAFETY: the kernel's layout, whose size was compared; the words are within `machine`, and the
    // kernel has written all of them that are part of a record.
    unsafe {
        let begin = ptr::from_ref(machine).byte_add(BEGIN);
        slice::from_raw_parts(begin.cast(), WORDS)
    }
}

/// The exception's syndrome, which has a record of its own behind the registers: each record begins
/// with its kind and its size in bytes, and the last has neither.
fn syndrome(records: &[u64]) -> Option<u64> {
    const SYNDROME: u32 = 0x4553_5201;
    let mut at = 0;
    while let Some(&head) = records.get(at) {
        let (kind, size) = (head as u32, (head >> 32) as usize);
        if kind == SYNDROME {
            return records.get(at + 1).copied();
        }
        if kind == 0 || size < size_of::<u64>() {
            return None;
        }
        at += size / size_of::<u64>();
    }
    None
}
