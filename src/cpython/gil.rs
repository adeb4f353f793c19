//! Whether the calling thread holds a host's GIL. With several hosts, it runs code of that host.
//!
//! `PyGILState_Check` does not suffice: it returns 1 once the host has had a subinterpreter, and
//! before it is initialised. So the thread's own state is compared with the current one, which is
//! the process's until 3.11 and the thread's from 3.12 on.

use core::ffi::{c_int, c_void};
use core::ptr::NonNull;

use super::symbols::Host;
use crate::os::weak::function;

type State = unsafe extern "C" fn() -> *mut c_void;

/// The functions of a host about its GIL.
#[derive(Clone, Copy)]
pub(crate) struct Gil {
    of_thread: Option<State>,
    current: Option<Current>,
    check: Option<unsafe extern "C" fn() -> c_int>,
    current_is_of_thread: bool,
}

#[derive(Clone, Copy)]
enum Current {
    Function(State),
    /// 2.7
    Variable(NonNull<*mut c_void>),
}

/// Whether a thread holds the GIL.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Holds {
    No,
    /// Unknown: the thread has a state in this host, and the current one may be of a subinterpreter.
    /// Or the host is a 2.7, which identifies threads by numbers that are used again.
    Maybe,
    Yes,
}

impl Gil {
    pub(crate) fn of(host: &Host) -> Gil {
        let state = |name| {
            // SAFETY: the three functions below have this type in every CPython.
            host.symbol(name)
                .map(|symbol| unsafe { function::<State>(symbol) })
        };
        let current = state(c"PyThreadState_GetUnchecked")
            .or_else(|| state(c"_PyThreadState_UncheckedGet"))
            .map(Current::Function);
        let variable = || {
            let variable = host.symbol(c"_PyThreadState_Current")?;
            Some(Current::Variable(variable.cast()))
        };
        let check = host.symbol(c"PyGILState_Check");
        Gil {
            of_thread: state(c"PyGILState_GetThisThreadState"),
            current: current.or_else(variable),
            // SAFETY: the function has this type since 3.4.
            check: check.map(|check| unsafe { function(check) }),
            current_is_of_thread: (host.version.major, host.version.minor) >= (3, 12),
        }
    }

    /// Whether the calling thread holds it.
    pub(crate) fn held(&self) -> Holds {
        let current = match self.current {
            // SAFETY: the function may be called at any time by any thread.
            Some(Current::Function(current)) => unsafe { current() },
            // SAFETY: the host's variable is a pointer, which is only compared.
            Some(Current::Variable(current)) => unsafe { current.as_ptr().read_volatile() },
            None => return Holds::No,
        };
        if current.is_null() {
            return Holds::No;
        }
        if self.current_is_of_thread {
            return Holds::Yes;
        }
        // SAFETY: the function may be called at any time; it returns NULL if the host has no state
        // for this thread or is not initialised.
        let of_thread = self.of_thread.map(|of_thread| unsafe { of_thread() });
        match of_thread {
            Some(state) if state == current => match self.current {
                Some(Current::Variable(_)) => Holds::Maybe,
                _ => Holds::Yes,
            },
            Some(state) if !state.is_null() => {
                // SAFETY: the function may be called at any time.
                let checked = self.check.is_some_and(|check| unsafe { check() } != 0);
                if checked { Holds::Maybe } else { Holds::No }
            }
            _ => Holds::No,
        }
    }
}

/// The host whose GIL the calling thread holds; `None` if it holds several.
pub(crate) fn only_holder<T>(all: impl Iterator<Item = (T, Gil)>) -> Option<T> {
    let (mut best, mut holder) = (Holds::No, None);
    for (one, gil) in all {
        let holds = gil.held();
        if holds > best {
            (best, holder) = (holds, Some(one));
        } else if holds == best && holds > Holds::No {
            holder = None;
        }
    }
    holder
}
