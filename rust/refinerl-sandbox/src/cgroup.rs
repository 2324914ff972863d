//! Control groups, one for each zygote, where the system allows them.
//!
//! `RLIMIT_AS` caps the address space of a test, and the second filter denies it descendants. A group counts what those
//! do not: page cache and kernel memory, and everything that a zygote and its tests have together. If this process is
//! in a group of the cpu controller, each zygote gets a share of its own in it, however many threads a test has.
//! Version 2 of the kernel's interface is used where it has the controllers, else version 1.

use std::cell::Cell;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Bytes beyond the memory of a test: for the zygote, the child that waits, page tables, pipes, and page cache.
const ROOM: u64 = 128 << 20;
/// Most processes and threads of a zygote and its children. The limit of threads of a child is 128.
const PROCESSES: &str = "300";
const NAME: &str = "refinerl-";

/// The place where groups can be created.
#[derive(Clone, Debug)]
pub struct Parent {
    folders: Vec<PathBuf>,
    /// The folder of the cpu controller, which is a separate tree in version 1. It is used where possible, not
    /// required.
    processor: Option<PathBuf>,
    version: Version,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl Version {
    const fn memory(self) -> (&'static str, &'static str) {
        match self {
            Version::One => ("memory.limit_in_bytes", "memory.oom_control"),
            Version::Two => ("memory.max", "memory.events"),
        }
    }

    /// File and key of the counter that rises when the limit of this group, and not one above it, is reached.
    const fn reached(self) -> (&'static str, &'static str) {
        match self {
            Version::One => ("memory.failcnt", ""),
            Version::Two => ("memory.events", "max "),
        }
    }
}

/// A control group. Dropping it removes it, so its processes must have ended.
#[derive(Debug)]
pub struct Group {
    folders: Vec<PathBuf>,
    version: Version,
    memory: Cell<u64>,
    owner: u32,
}

/// The limit that was reached when the kernel killed a process for want of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// The group's own: the test took more than it may.
    Here,
    /// One above, or the machine's: other processes may have taken the memory.
    Above,
}

impl Parent {
    /// Find the place, and remove the groups that killed processes left there. The error says why there is none.
    pub fn find() -> Result<Parent, String> {
        let read = |path: &str| fs::read_to_string(path).map_err(|error| format!("{path}: {error}"));
        let parent = Parent::of(&read("/proc/self/cgroup")?, &read("/proc/self/mountinfo")?)?;
        parent.remove_stale();
        Ok(parent)
    }

    /// Find the place from the texts of the two files.
    fn of(groups: &str, mounts: &str) -> Result<Parent, String> {
        let mounts: Vec<Mount<'_>> = mounts.lines().filter_map(Mount::parse).collect();
        let own = |controller: &str| -> Option<PathBuf> {
            let mount = mounts.iter().find(|mount| mount.controls(controller))?;
            let path = groups.lines().find_map(|line| {
                let mut fields = line.splitn(3, ':').skip(1);
                let (names, path) = (fields.next()?, fields.next()?);
                names.split(',').any(|name| name == controller).then_some(path)
            })?;
            let below = Path::new(path).strip_prefix(mount.root).unwrap_or(Path::new(""));
            Some(mount.point.join(below))
        };
        if let Some(folder) = own("").and_then(|folder| delegated(&folder)) {
            return Ok(Parent {
                folders: vec![folder],
                processor: None,
                version: Version::Two,
            });
        }
        match (own("memory"), own("pids")) {
            (Some(memory), Some(pids)) => Ok(Parent {
                folders: vec![memory, pids],
                // At the root, the kernel's autogroup already gives each test, which is a session, a share of its own.
                processor: own("cpu").filter(|folder| mounts.iter().all(|mount| mount.point != *folder)),
                version: Version::One,
            }),
            _ => Err("no control group above this process gives its children the controllers memory and pids".into()),
        }
    }

    /// Create a group without processes.
    pub fn make(&self) -> Result<Group, String> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{NAME}{}-{count}", std::process::id());
        let mut group = Group {
            folders: Vec::new(),
            version: self.version,
            memory: Cell::new(0),
            owner: std::process::id(),
        };
        for parent in &self.folders {
            let folder = parent.join(&name);
            fs::create_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
            group.folders.push(folder);
        }
        let processor = self.processor.as_ref().map(|parent| parent.join(&name));
        group
            .folders
            .extend(processor.filter(|folder| fs::create_dir(folder).is_ok()));
        group.set("pids.max", PROCESSES)?;
        if self.version == Version::Two {
            // Without swap in the kernel there is no such file, and nothing to deny.
            let _ = group.set("memory.swap.max", "0");
        }
        group.limit(0)?;
        Ok(group)
    }

    fn remove_stale(&self) {
        let folders = self.folders.iter().chain(&self.processor);
        for entry in folders.flat_map(fs::read_dir).flatten().flatten() {
            let name = entry.file_name();
            let owner = name
                .to_str()
                .and_then(|name| name.strip_prefix(NAME)?.split('-').next());
            if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
                // It may have been removed by others, or still hold a process: then leave it.
                let _ = fs::remove_dir(entry.path());
            }
        }
    }
}

impl Group {
    /// Add a process, and with it all its future forks.
    pub fn add(&self, pid: u32) -> Result<(), String> {
        self.folders
            .iter()
            .try_for_each(|folder| put(&folder.join("cgroup.procs"), &pid.to_string()))
    }

    /// Set the memory that the next test may take, in bytes.
    pub fn limit(&self, memory: u64) -> Result<(), String> {
        if self.memory.replace(memory.max(1)) == memory.max(1) {
            return Ok(());
        }
        self.set(
            self.version.memory().0,
            &memory.saturating_add(ROOM).min(i64::MAX as u64).to_string(),
        )
    }

    /// Number of processes in this group that the kernel has killed for want of memory.
    pub fn killed(&self) -> u64 {
        self.counter(self.version.memory().1, "oom_kill ")
    }

    /// Number of times that the group reached its limit of memory.
    pub fn reached(&self) -> u64 {
        let (name, key) = self.version.reached();
        self.counter(name, key)
    }

    fn counter(&self, name: &str, key: &str) -> u64 {
        self.file(name).map_or(0, |path| counter(&path, key))
    }

    fn set(&self, name: &str, value: &str) -> Result<(), String> {
        let path = self.file(name).ok_or_else(|| format!("no control group has {name}"))?;
        put(&path, value)
    }

    fn file(&self, name: &str) -> Option<PathBuf> {
        self.folders
            .iter()
            .map(|folder| folder.join(name))
            .find(|path| path.exists())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if self.owner != std::process::id() {
            return; // a fork of our process does not own the group
        }
        for folder in &self.folders {
            // The kernel may need a moment after the last process ends. The next sandbox removes what is left.
            for _ in 0..100 {
                match fs::remove_dir(folder) {
                    Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    _ => break,
                }
            }
        }
    }
}

/// From the group upwards, the first whose children have both controllers.
fn delegated(own: &Path) -> Option<PathBuf> {
    let hands_on = |folder: &&Path| {
        fs::read_to_string(folder.join("cgroup.subtree_control")).is_ok_and(|text| {
            let names: Vec<&str> = text.split_whitespace().collect();
            names.contains(&"memory") && names.contains(&"pids")
        })
    };
    own.ancestors().find(hands_on).map(Path::to_path_buf)
}

/// Number of processes on the whole machine that the kernel has killed for want of memory.
pub fn killed_anywhere() -> u64 {
    counter(Path::new("/proc/vmstat"), "oom_kill ")
}

/// Read the number after `key` in a file of the kernel; 0 if there is none.
fn counter(path: &Path, key: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let number = |line: &str| line.strip_prefix(key)?.trim().parse().ok();
    text.lines().find_map(number).unwrap_or(0)
}

fn put(path: &Path, value: &str) -> Result<(), String> {
    let written = fs::OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut file| file.write_all(value.as_bytes()));
    written.map_err(|error| format!("{}: {error}", path.display()))
}

/// A line of mountinfo that mounts control groups.
struct Mount<'a> {
    root: &'a str,
    point: PathBuf,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Mount<'a>> {
        let (left, right) = line.split_once(" - ")?;
        let (mut left, mut right) = (left.split(' ').skip(3), right.split(' '));
        let (root, point) = (left.next()?, left.next()?);
        let (kind, options) = (right.next()?, right.nth(1)?);
        kind.starts_with("cgroup").then_some(Mount {
            root,
            point: point.into(),
            kind,
            options,
        })
    }

    /// True if it is the tree of a controller; "" is version 2, which has one tree for all.
    fn controls(&self, controller: &str) -> bool {
        match controller {
            "" => self.kind == "cgroup2",
            name => self.kind == "cgroup" && self.options.split(',').any(|option| option == name),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};

    use super::{Parent, Version};

    #[test]
    fn the_place_follows_from_what_the_kernel_says() {
        let one = Parent::of(
            "9:pids:/\n4:memory:/box/a\n0::/\n",
            "35 31 0:32 / /g/memory rw - cgroup cgroup rw,memory\n39 31 0:36 / /g/pids rw - cgroup cgroup rw,pids\n",
        )
        .unwrap();
        assert_eq!(one.version, Version::One);
        assert_eq!(
            one.folders,
            ["/g/memory/box/a", "/g/pids/"].map(std::path::PathBuf::from)
        );
        assert_eq!(one.processor, None);
        let cpu = |own: &str| {
            let groups = format!("9:pids:/\n4:memory:/\n3:cpu,cpuacct:{own}\n");
            let mount = |name: &str| format!("35 31 0:32 / /g/{name} rw - cgroup cgroup rw,{name}\n");
            Parent::of(&groups, &["memory", "pids", "cpu"].map(mount).concat())
                .unwrap()
                .processor
        };
        assert_eq!((cpu("/"), cpu("/box")), (None, Some("/g/cpu/box".into())));
        assert!(Parent::of("0::/\n", "35 31 0:32 / / rw - ext4 /dev/vda rw\n").is_err());
    }

    #[test]
    fn version_2_is_taken_where_a_group_hands_both_controllers_on() {
        let folder = std::env::temp_dir().join(format!("refinerl-cgroup-test-{}", std::process::id()));
        let own = folder.join("slice/scope");
        std::fs::create_dir_all(&own).unwrap();
        std::fs::write(own.join("cgroup.subtree_control"), "").unwrap();
        std::fs::write(folder.join("slice/cgroup.subtree_control"), "cpu memory pids\n").unwrap();
        let mounts = format!("35 31 0:32 / {} rw - cgroup2 cgroup rw\n", folder.display());
        let parent = Parent::of("0::/slice/scope\n", &mounts);
        std::fs::remove_dir_all(&folder).unwrap();
        let parent = parent.unwrap();
        assert_eq!(
            (parent.version, parent.folders),
            (Version::Two, vec![folder.join("slice")])
        );
    }

    /// With the machine's own groups, where they can be made.
    #[test]
    fn a_process_that_takes_more_is_killed_and_counted() {
        let Ok(group) = Parent::find().and_then(|parent| parent.make()) else {
            return; // `python -m refinerl.sandbox doctor` shows the reason
        };
        group.limit(0).unwrap();
        let mut child = Command::new("python3")
            .args(["-c", "input(); hold = bytearray(1 << 30)"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        group.add(child.id()).unwrap();
        child.stdin.take().unwrap().write_all(b"\n").unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        assert_eq!(group.killed(), 1);
        let folder = group.folders[0].clone();
        drop(group);
        assert!(!folder.exists());
    }
}
