//! Packets with file descriptors over a SOCK_SEQPACKET socket, and helpers for reading and writing descriptors.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::fs::{fcntl_getfl, fcntl_setfl, OFlags};
use rustix::io::{Errno, Result};
use rustix::net::{
    recvmsg, sendmsg, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

/// Send one packet.
pub fn send(socket: &OwnedFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(fds));
    }
    retry(|| sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)).map(drop)
}

/// Receive one packet and the descriptors that it carries. An empty packet is end-of-file.
pub fn receive(socket: &OwnedFd, size: usize) -> Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = vec![0; size];
    let received = retry(|| {
        recvmsg(
            socket,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )
    })?;
    // The kernel drops descriptors for which this process has no room left.
    if received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(Errno::MFILE);
    }
    bytes.truncate(received.bytes);
    let fds = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    Ok((bytes, fds.flatten().collect()))
}

/// Write to a stream socket as much as fits now. If the peer is gone, that is an error and not a signal.
pub fn write(socket: &OwnedFd, bytes: &[u8]) -> Result<usize> {
    retry(|| rustix::net::send(socket, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT))
}

/// Pass to `take` the bytes that can be read from a non-blocking descriptor now, until it returns false. Returns false
/// at end-of-file or after an error.
pub fn read_available(fd: &OwnedFd, mut take: impl FnMut(&[u8]) -> bool) -> bool {
    let mut buffer = [0u8; 65536];
    loop {
        match retry(|| rustix::io::read(fd, &mut buffer)) {
            Ok(0) => return false,
            Ok(count) => {
                if !take(&buffer[..count]) {
                    return true;
                }
            }
            Err(Errno::AGAIN) => return true,
            Err(_) => return false,
        }
    }
}

/// Repeat a call that a signal interrupted.
pub fn retry<T>(mut call: impl FnMut() -> Result<T>) -> Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Make reads and writes on this descriptor non-blocking.
pub fn set_nonblocking(fd: impl AsFd) -> Result<()> {
    let fd = fd.as_fd();
    fcntl_setfl(fd, fcntl_getfl(fd)? | OFlags::NONBLOCK)
}

/// Wait until a descriptor is readable or at end-of-file. Returns false after `timeout`.
pub fn readable(fd: impl AsFd, timeout: Duration) -> bool {
    let deadline = Instant::now() + timeout;
    retry(|| {
        let left = deadline.saturating_duration_since(Instant::now());
        poll(
            &mut [PollFd::new(&fd, PollFlags::IN)],
            Timespec::try_from(left).ok().as_ref(),
        )
    })
    .is_ok_and(|count| count > 0)
}
