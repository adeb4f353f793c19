//! One word of thread-local storage, read in two instructions on x86-64 and in four on aarch64.
//!
//! Stable Rust reaches thread-local storage in a shared library through `__tls_get_addr`: on x86-64
//! a call, three saved registers, 32 instructions where 12 suffice (callgrind). So the word is defined by
//! hand, in the initial-exec model: the GOT has its offset from the thread pointer, filled in by
//! the loader. It takes 8 bytes of the about 1.7 KiB of static thread-local storage that the C
//! library keeps for libraries that are opened late.
//!
//! musl keeps none, and refuses to open such a library. There the word has a TLS descriptor: a
//! function of the loader that returns the word's offset from the thread pointer. The offset is
//! kept in a variable where it is the same in all threads, which it is if the library was loaded at
//! start; so the function is called once, at two instructions more for each read. In C code that
//! calls malloc and free in turns both forms take 7.2 ns for a pair, and a form that calls the
//! function each time 9.2 ns.
//!
//! `start_at!` sets the initial value of the word, once, in the file that defines its meaning. It
//! holds in threads that exist when the library is opened, too: the loader relocates the image
//! before it copies it.

use core::ptr::NonNull;

#[cfg(not(miri))]
use super::arch;
#[cfg(miri)]
use super::interpreted::WORD;

/// Defines the word; its initial value is the address of the named static.
#[cfg(not(miri))]
macro_rules! start_at {
    ($start:path) => {
        core::arch::global_asm!(
            ".pushsection .tdata.obmalloc_thread_word,\"awT\",@progbits",
            ".p2align 3",
            ".globl obmalloc_thread_word",
            ".hidden obmalloc_thread_word",
            ".type obmalloc_thread_word,@object",
            ".size obmalloc_thread_word,8",
            "obmalloc_thread_word: .quad {start}",
            ".popsection",
            start = sym $start,
        );
    };
}
#[cfg(miri)]
macro_rules! start_at {
    ($start:path) => {
        #[unsafe(no_mangle)]
        extern "Rust" fn obmalloc_thread_word() -> core::ptr::NonNull<()> {
            core::ptr::NonNull::from(&$start).cast()
        }
    };
}
pub(crate) use start_at;

/// The word of the calling thread.
#[inline(always)]
pub(crate) fn get() -> NonNull<()> {
    // Loom's threads have their words elsewhere, once they have set them.
    #[cfg(all(test, loom))]
    if let Some(word) = crate::sync::execution::word() {
        return word;
    }
    #[cfg(miri)]
    return WORD.get();
    #[cfg(not(miri))]
    read()
}

#[cfg(not(miri))]
#[inline(always)]
fn read() -> NonNull<()> {
    // SAFETY: it starts as the address of a static and is only ever set to
    // another non-null pointer.
    unsafe { NonNull::new_unchecked(arch::thread_word()) }
}

/// Sets the word of the calling thread.
pub(crate) fn set(word: NonNull<()>) {
    #[cfg(all(test, loom))]
    return crate::sync::execution::set_word(word);
    #[cfg(miri)]
    return WORD.set(word);
    #[cfg(not(any(all(test, loom), miri)))]
    // SAFETY: the readers take any pointer that is not null.
    unsafe {
        arch::set_thread_word(word.as_ptr());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thread_has_a_word_of_its_own() {
        fn starts_as() -> usize {
            std::thread::spawn(|| get().addr().get()).join().unwrap()
        }
        let start = starts_as();
        std::thread::spawn(move || {
            let before = get();
            assert_eq!(before.addr().get(), start);
            let mut value = 0u64;
            let mine = NonNull::from(&mut value).cast();
            set(mine);
            assert_eq!(get(), mine);
            assert_eq!(starts_as(), start);
            set(before);
        })
        .join()
        .unwrap();
    }
}
