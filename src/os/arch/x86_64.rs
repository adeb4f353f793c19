//! x86-64.

use core::ffi::{c_int, c_long};

use super::{Access, PageFault};

/// Relocation types of the dynamic linker.
pub(crate) mod relocation {
    pub(crate) const ABSOLUTE: u64 = 1; // R_X86_64_64
    pub(crate) const GLOB_DAT: u64 = 6;
    pub(crate) const JUMP_SLOT: u64 = 7;
    pub(crate) const RELATIVE: u64 = 8;
}

/// Text for `global_asm!`: a jump to what follows.
macro_rules! jump {
    () => {
        "jmp "
    };
}
pub(crate) use jump;

/// Text for `global_asm!`: an instruction that ends the process.
#[cfg(not(panic = "unwind"))]
macro_rules! trap {
    () => {
        "ud2"
    };
}
#[cfg(not(panic = "unwind"))]
pub(crate) use trap;

/// Text for `asm!`: loads the GOT's entry of the symbol `$name` to the register `address`.
#[cfg(not(miri))]
macro_rules! load_got_entry {
    ($name:literal) => {
        concat!("mov {address}, qword ptr [rip + ", $name, "@GOTPCREL]")
    };
}
#[cfg(not(miri))]
pub(crate) use load_got_entry;

/// The body of a function that jumps to the one at `$offset` in the table that the atomic pointer
/// `$route` leads to, with all arguments and the return address unchanged.
macro_rules! jump_through {
    ($route:path, $offset:expr) => {
        core::arch::naked_asm!(
            "mov rax, qword ptr [rip + {route}]",
            "jmp qword ptr [rax + {offset}]",
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
            "push rdi",
            ".cfi_adjust_cfa_offset 8",
            "push rsi",
            ".cfi_adjust_cfa_offset 8",
            "sub rsp, 8",
            ".cfi_adjust_cfa_offset 8",
            "mov rdi, qword ptr [rsp + 24]",
            "call {which}",
            "add rsp, 8",
            ".cfi_adjust_cfa_offset -8",
            "pop rsi",
            ".cfi_adjust_cfa_offset -8",
            "pop rdi",
            ".cfi_adjust_cfa_offset -8",
            "jmp qword ptr [rax + {offset}]",
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
            "mov rdi, qword ptr [rsp]",
            "jmp {function}",
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
            "mov {word}, qword ptr [rip + obmalloc_thread_word@GOTTPOFF]",
            "mov {word}, qword ptr fs:[{word}]",
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
    // the word's offset in rax and changes no other register; its return address is written below
    // the red zone. `readonly`, not `nomem`: `set_thread_word` changes the word.
    unsafe {
        core::arch::asm!(
            "movq {offset}(%rip), {word}",
            "testq {word}, {word}",
            "je 3f",
            "2: movq %fs:({word}), {word}",
            ".pushsection .text.unlikely.obmalloc_thread_word,\"ax\",@progbits",
            "3: leaq -128(%rsp), %rsp",
            "xchgq {word}, %rax",
            "leaq obmalloc_thread_word@tlsdesc(%rip), %rax",
            "call *obmalloc_thread_word@tlscall(%rax)",
            "xchgq {word}, %rax",
            "leaq 128(%rsp), %rsp",
            "jmp 2b",
            ".popsection",
            offset = sym super::OFFSET,
            word = out(reg) word,
            options(pure, readonly, nostack, att_syntax)
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
    // SAFETY: the descriptor's function returns the word's offset in rax and changes no other
    // register. Writes thread-local storage that every thread has; the value is valid by the
    // contract above.
    unsafe {
        core::arch::asm!(
            "leaq obmalloc_thread_word@tlsdesc(%rip), %rax",
            "movq %rax, {descriptor}",
            "call *obmalloc_thread_word@tlscall(%rax)",
            "movq {word}, %fs:(%rax)",
            out("rax") offset,
            descriptor = out(reg) descriptor,
            word = in(reg) word,
            options(att_syntax)
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
            "mov {offset}, qword ptr [rip + obmalloc_thread_word@GOTTPOFF]",
            "mov qword ptr fs:[{offset}], {word}",
            offset = out(reg) _,
            word = in(reg) word,
            options(nostack, preserves_flags)
        );
    }
}

/// The address of the thread's control block.
#[inline(always)]
pub(crate) fn control_block() -> usize {
    let block: usize;
    // SAFETY: by the ABI of thread-local storage the first word of the block, which `fs`
    // points to, is its own address.
    unsafe {
        core::arch::asm!(
            "mov {block}, qword ptr fs:[0]",
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
            "syscall",
            inlateout("rax") number as isize => answer,
            in("rdi") a,
            in("rsi") b,
            in("rdx") c,
            in("r10") d,
            lateout("rcx") _,
            lateout("r11") _,
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
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "xor edi, edi",
            "mov eax, {exit}",
            "syscall",
            "ud2",
            "2:",
            exit = const libc::SYS_exit,
            inlateout("rax") libc::SYS_clone as isize => answer,
            in("rdi") flags as usize,
            in("rsi") top,
            in("rdx") word,
            in("r10") word,
            in("r8") 0,
            in("r12") argument,
            in("r13") function,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    answer
}

/// Loads entry `i` of a table. (In one instruction: of a 16-bit atomic the compiler extends the
/// loaded value once more.)
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
            "movzx {entry:e}, word ptr [{table} + 2 * {i}]",
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
    // and returns its result in rdx.
    unsafe {
        core::arch::asm!(
            "rol rdi, 3",
            "rol rdi, 13",
            "rol rdi, 61",
            "rol rdi, 51",
            "xchg rbx, rbx",
            in("rax") words.as_ptr(),
            inout("rdx") answer,
            options(nostack)
        );
    }
    answer
}

/// The page fault that the kernel saved the registers of, if it was one.
///
/// A signal that is raised in the handler of a fault still has these registers of the fault,
/// but not its instruction.
pub(crate) fn page_fault(context: &libc::ucontext_t, _: &libc::siginfo_t) -> Option<PageFault> {
    const PAGE_FAULT: i64 = 14;
    const WRITE: i64 = 2;
    const FETCH: i64 = 16;
    let register = |i: c_int| context.uc_mcontext.gregs[i as usize];
    if register(libc::REG_TRAPNO) != PAGE_FAULT {
        return None;
    }
    let error = register(libc::REG_ERR);
    let access = if error & FETCH != 0 {
        Access::Run
    } else if error & WRITE != 0 {
        Access::Write
    } else {
        Access::Read
    };
    Some(PageFault {
        access,
        address: register(libc::REG_CR2).cast_unsigned() as usize,
        instruction: register(libc::REG_RIP).cast_unsigned() as usize,
    })
}
