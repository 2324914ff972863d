//! What comes out of a child, capped.

use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::io::Errno;

use crate::channel::{read_available, set_nonblocking};

/// One stream: at most `limit` bytes are read in all, the last `keep` of them are kept.
pub struct Capture {
    /// None once it has ended.
    pub fd: Option<OwnedFd>,
    /// What was kept (for a moment up to twice `keep`).
    pub bytes: Vec<u8>,
    total: usize,
    limit: usize,
    keep: usize,
}

impl Capture {
    /// Read `fd` without ever waiting for it.
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

    /// Take what is there, until the limit is exceeded.
    pub fn drain(&mut self) {
        self.drain_some(usize::MAX);
    }

    /// The same, until at least `enough` bytes are kept; whether more may be there.
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

    /// It wrote more than it may.
    pub fn overflown(&self) -> bool {
        self.total > self.limit
    }

    /// The last `keep` bytes.
    pub fn tail(&mut self) -> Vec<u8> {
        self.bytes.split_off(self.bytes.len().saturating_sub(self.keep))
    }
}

/// Tag, processor seconds, length.
const HEADER: usize = 1 + 8 + 4;

/// One result of a call-based program.
pub struct Frame {
    /// v: a value, e: an exception, m: out of memory.
    pub tag: u8,
    /// Processor seconds, as the child says.
    pub cpu: f64,
    /// On the clock, since the result before it.
    pub wall: f64,
    /// The encoded value.
    pub payload: Vec<u8>,
}

/// The stream of results: at most `count` frames of at most `limit` bytes each, given away as they come.
pub struct Frames<'a> {
    /// What is not yet a frame.
    pub capture: Capture,
    take: &'a mut dyn FnMut(Frame),
    /// So many more may come.
    count: usize,
    limit: usize,
    too_long: bool,
    last: Instant,
}

impl<'a> Frames<'a> {
    /// Read at most `count` frames from `fd`; none is as many as may come from programs that print.
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

    /// Take what is there; whether that completed a frame.
    pub fn drain(&mut self) -> bool {
        let before = self.count;
        while self.count > 0 && !self.too_long && self.capture.drain_some(self.limit.saturating_add(HEADER)) {
            self.split();
        }
        self.split();
        if self.count == 0 && self.capture.fd.is_some() {
            // One byte more is enough to know that there is too much.
            self.capture.drain_some(1);
            if self.garbled() {
                self.capture.fd = None;
            }
        }
        self.count < before
    }

    /// Take the frames that are complete.
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

    /// More, or longer, than allowed.
    pub fn overflown(&self) -> bool {
        self.too_long || self.capture.overflown()
    }

    /// Something that is no frame is left.
    pub fn garbled(&self) -> bool {
        !self.capture.bytes.is_empty()
    }
}
