//! Output of a child, read up to a limit.

use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::io::Errno;

use crate::channel::{read_available, set_nonblocking};

/// A stream of which at most `limit` bytes are read in all and the last `keep` are kept.
pub struct Capture {
    /// The descriptor; None once the stream has ended.
    pub fd: Option<OwnedFd>,
    /// The bytes kept so far, up to twice `keep` of them.
    pub bytes: Vec<u8>,
    total: usize,
    limit: usize,
    keep: usize,
}

impl Capture {
    /// Read from `fd`, which becomes non-blocking.
    pub fn new(fd: OwnedFd, limit: usize, keep: usize) -> Result<Capture, Errno> {
        set_nonblocking(&fd)?;
        Ok(Capture {
            fd: Some(fd),
            bytes: Vec::new(),
            total: 0,
            limit,
            keep,
        })
    }

    /// Read what is available, until the limit is exceeded.
    pub fn drain(&mut self) {
        self.drain_some(usize::MAX);
    }

    /// Do the same until at least `enough` bytes are kept. Returns true if more may be available.
    pub fn drain_some(&mut self, enough: usize) -> bool {
        let Some(fd) = &self.fd else { return false };
        let (bytes, total, limit, keep) = (&mut self.bytes, &mut self.total, self.limit, self.keep);
        let mut full = false;
        let open = *total <= limit
            && read_available(fd, |chunk| {
                *total += chunk.len();
                bytes.extend_from_slice(chunk);
                if bytes.len() > keep.saturating_mul(2) {
                    bytes.drain(..bytes.len() - keep);
                }
                full = bytes.len() >= enough;
                *total <= limit && !full
            });
        if !open {
            self.fd = None;
        }
        full && open
    }

    /// True if the child wrote more than it may.
    pub fn overflown(&self) -> bool {
        self.total > self.limit
    }

    /// Take the last `keep` bytes.
    pub fn tail(&mut self) -> Vec<u8> {
        self.bytes.split_off(self.bytes.len().saturating_sub(self.keep))
    }
}

/// Size of a frame's header: tag, processor seconds, length.
const HEADER: usize = 1 + 8 + 4;

/// One result of a call-based program.
pub struct Frame {
    /// `v` is a value, `e` an exception, `m` out of memory, `s` the end of the import.
    pub tag: u8,
    /// Processor seconds, as the child claims.
    pub cpu: f64,
    /// Wall-clock seconds since the previous result.
    pub wall: f64,
    /// The encoded value.
    pub payload: Vec<u8>,
}

/// The stream of results: at most `count` frames of at most `limit` bytes each, passed on as they arrive.
pub struct Frames<'a> {
    /// The stream, with the bytes that do not yet make a frame.
    pub capture: Capture,
    take: &'a mut dyn FnMut(Frame),
    /// Number of frames that may still come.
    count: usize,
    limit: usize,
    too_long: bool,
    last: Instant,
}

impl<'a> Frames<'a> {
    /// Read at most `count` frames from `fd`; 0 for programs that print.
    pub fn new(fd: OwnedFd, count: usize, limit: usize, take: &'a mut dyn FnMut(Frame)) -> Result<Frames<'a>, Errno> {
        let all = count.saturating_mul(limit.saturating_add(HEADER));
        let mut capture = Capture::new(fd, all, usize::MAX)?;
        if count == 0 {
            capture.fd = None;
        }
        Ok(Frames {
            capture,
            take,
            count,
            limit,
            too_long: false,
            last: Instant::now(),
        })
    }

    /// Read what is available. Returns true if that completed a frame.
    pub fn drain(&mut self) -> bool {
        let before = self.count;
        while self.count > 0 && !self.too_long && self.capture.drain_some(self.limit.saturating_add(HEADER)) {
            self.split();
        }
        self.split();
        if self.count == 0 && self.capture.fd.is_some() {
            // One byte more is enough to know that there are too many.
            self.capture.drain_some(1);
            if self.garbled() {
                self.capture.fd = None;
            }
        }
        self.count < before
    }

    /// Pass on the frames that are complete.
    fn split(&mut self) {
        let mut start = 0;
        while self.count > 0 {
            let rest = &self.capture.bytes[start..];
            if rest.len() < HEADER {
                break;
            }
            let cpu = f64::from_le_bytes(rest[1..9].try_into().unwrap_or_default());
            let length = u32::from_le_bytes(rest[9..13].try_into().unwrap_or_default()) as usize;
            if length > self.limit {
                self.too_long = true;
                break;
            }
            let Some(payload) = rest.get(HEADER..HEADER + length) else {
                break;
            };
            let wall = self.last.elapsed().as_secs_f64();
            (self.take)(Frame {
                tag: rest[0],
                cpu,
                wall,
                payload: payload.to_vec(),
            });
            self.count -= 1;
            self.last = Instant::now();
            start += HEADER + length;
        }
        self.capture.bytes.drain(..start);
    }

    /// True if there are more or longer frames than allowed.
    pub fn overflown(&self) -> bool {
        self.too_long || self.capture.overflown()
    }

    /// True if bytes are left that make no frame.
    pub fn garbled(&self) -> bool {
        !self.capture.bytes.is_empty()
    }
}
