//! The layout of CPython's frames, code objects and strings, as far as a traceback needs it: offsets
//! in bytes, by version. They are fixed within a minor version; out-of-process profilers rely on
//! the same offsets.
//!
//! ```text
//!   thread state --first--> frame --back--> frame --back--> ... NULL
//!                             | code
//!                             v
//!                           code object --filename, name--> string
//! ```
//!
//! The numbers come from `offsetof` with each version's own headers, on 64-bit machines; the preload
//! tests compare the frames with Python's own. From 3.13 on the interpreter has them itself
//! (`debug_offsets`). Reports have no Python lines in a debug build and in a free-threaded build.
#![forbid(unsafe_code)]

/// The offsets of one or more versions.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    /// From the thread state to the first frame, in one step or two.
    pub(super) first: (usize, Option<usize>),
    /// In a frame.
    pub(super) back: usize,
    pub(super) code: usize,
    /// How the line number is found.
    pub(super) line: Line,
    /// In a code object.
    pub(super) filename: usize,
    pub(super) name: usize,
    /// How its strings are stored.
    pub(super) text: Text,
}

impl Layout {
    /// Bytes of a frame that are read.
    pub(super) fn frame_bytes(&self) -> usize {
        let line = match self.line {
            Line::Object => 0,
            Line::Instruction {
                instruction, owner, ..
            } => instruction.max(owner),
        };
        self.back.max(self.code).max(line) + size_of::<usize>()
    }
}

impl Text {
    /// Bytes of a string's header that are read.
    pub(super) fn head_bytes(&self) -> usize {
        let last = match *self {
            Text::Bytes { len, .. } => len,
            Text::Characters { state, length, .. } => state.max(length),
        };
        last + size_of::<usize>()
    }
}

/// How a frame's line number is found.
#[derive(Clone, Copy)]
pub(super) enum Line {
    /// By `PyFrame_GetLineNumber`: the frame is an object.
    Object,
    /// By `PyCode_Addr2Line`, from the offset of the frame's instruction in the code object.
    Instruction {
        /// In a frame: a pointer to an instruction.
        instruction: usize,
        /// In a frame: its owner; frames of the C stack have no code of a program.
        owner: usize,
        /// In a code object: its first instruction.
        instructions: usize,
    },
}

/// How strings are stored.
#[derive(Clone, Copy)]
pub(super) enum Text {
    /// Bytes: the offset of their number, and their own (2.7).
    Bytes { len: usize, bytes: usize },
    /// Characters of one, two or four bytes each, after a header that is shorter if all are ASCII: the
    /// offsets of their state and number, and the lengths of both headers.
    Characters {
        state: usize,
        length: usize,
        ascii: usize,
        others: usize,
    },
}

/// Fields of the state of a string of characters: bytes in a character, and two flags.
pub(super) const KIND_SHIFT: u32 = 2;
pub(super) const KIND_MASK: u32 = 7;
pub(super) const COMPACT: u32 = 0x20;
pub(super) const ASCII: u32 = 0x40;
/// Owners of frames from here on are the interpreter and the C stack: they have no code of a program.
pub(super) const NO_PROGRAM: u8 = 3;
/// Bits of a frame's reference to its code object that are tags from 3.14 on, and 0 before.
pub(super) const TAGS: usize = 3;
/// Offset of the type in every object.
pub(super) const TYPE: usize = 8;

const OLD: Text = Text::Characters {
    state: 32,
    length: 16,
    ascii: 48,
    others: 72,
};
const NEW: Text = Text::Characters {
    state: 32,
    length: 16,
    ascii: 40,
    others: 56,
};

const fn object_frames(first: (usize, Option<usize>), filename: usize, text: Text) -> Layout {
    Layout {
        first,
        back: 24,
        code: 32,
        line: Line::Object,
        filename,
        name: filename + 8,
        text,
    }
}

const fn interpreter_frames(
    first: (usize, Option<usize>),
    (back, code): (usize, usize),
    (owner, instructions): (usize, usize),
    text: Text,
) -> Layout {
    Layout {
        first,
        back,
        code,
        line: Line::Instruction {
            instruction: 56,
            owner,
            instructions,
        },
        filename: 112,
        name: 120,
        text,
    }
}

/// The layout of a version up to 3.12, if it is in the table.
pub(super) fn of(major: u32, minor: u32) -> Option<Layout> {
    const BYTES: Text = Text::Bytes { len: 16, bytes: 36 };
    Some(match (major, minor) {
        (2, 7) => object_frames((16, None), 80, BYTES),
        (3, 6 | 7) => object_frames((24, None), 96, OLD),
        (3, 8..=10) => object_frames((24, None), 104, OLD),
        (3, 11) => interpreter_frames((56, Some(8)), (48, 32), (69, 184), OLD),
        (3, 12) => interpreter_frames((56, Some(0)), (8, 0), (70, 192), NEW),
        _ => return None,
    })
}
