//! The plan for starting zygotes: the findings of `python/probe.py`, and Landlock and the filters, which are added
//! here.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use landlock::{path_beneath_rules, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetCreatedAttr, Scope, ABI};

use crate::cgroup::Parent;
use crate::process::{Interpreter, ZYGOTE_MODULES};
use crate::value::Value;
use crate::zygote::Launch;
use crate::{filter, process, Error};

/// The newest version of Landlock whose rights are denied, as far as the kernel knows them.
const LANDLOCK: ABI = ABI::V7;

/// The row of control groups, which are used where the system allows them; full isolation does not require them.
pub const CGROUP: &str = "cgroup";

/// A row of the isolation report.
#[derive(Clone, Debug)]
pub struct Protection {
    /// The protection's name.
    pub name: String,
    /// True if it is on.
    pub on: bool,
    /// The reason why it is off.
    pub reason: String,
    /// The gain of a program from its absence, considering its substitutes.
    pub exposed: String,
}

/// Probe the machine in a separate process. Returns the plan for starting zygotes, and the report.
pub fn probe(interpreter: Interpreter) -> Result<(Launch, Vec<Protection>), Error> {
    let trial = Parent::find().and_then(|parent| Ok((parent.make()?, parent)));
    let mut groups = trial.as_ref().map(|(_, parent)| parent.clone()).map_err(String::clone);
    let plan = process::ask(&interpreter, |pid| {
        if let Some(Err(reason)) = trial.as_ref().ok().map(|(group, _)| group.add(pid)) {
            groups = Err(reason);
        }
    })?;
    let mut report = report(&plan).ok_or_else(|| Error::Fault("the probe's report is incomplete".into()))?;
    if let Some(row) = report.iter().find(|row| row.name == "seccomp" && !row.on) {
        return Err(Error::Fault(format!(
            "no sandbox without seccomp, which this system refuses: {}",
            row.reason
        )));
    }
    report.push(cgroup_row(groups.as_ref().err()));
    let namespaces = field(&plan, "namespaces") == Some(&Value::Bool(true));
    let confine_writes = field(&plan, "confine_writes") == Some(&Value::Bool(true));
    let landlock = match field(&plan, "landlock") {
        Some(Value::Int(version)) if *version > 0 => Some(Arc::new(ruleset(&paths(&plan))?)),
        _ => None,
    };
    let launch = Launch {
        interpreter,
        modules: ZYGOTE_MODULES,
        plan,
        visible: !namespaces && landlock.is_none(),
        landlock,
        groups: groups.ok(),
        first_filter: filter::first(confine_writes).map_err(Error::Fault)?,
        second_filter: filter::second().map_err(Error::Fault)?,
    };
    Ok((launch, report))
}

/// Build the Landlock ruleset: the interpreter's files can be read; no other path, no TCP, no abstract sockets, and no
/// signals to other domains.
fn ruleset(readable: &[PathBuf]) -> Result<OwnedFd, Error> {
    let fault = |error: &dyn std::fmt::Display| Error::Fault(format!("Landlock: {error}"));
    let created = Ruleset::default()
        .handle_access(AccessFs::from_all(LANDLOCK))
        .and_then(|ruleset| ruleset.handle_access(AccessNet::from_all(LANDLOCK)))
        .and_then(|ruleset| ruleset.scope(Scope::from_all(LANDLOCK)))
        .and_then(Ruleset::create)
        .map_err(|error| fault(&error))?;
    // /dev/zero is not among them: a mapping of it, open for writing, would be shared memory.
    let sinks = readable
        .iter()
        .filter(|path| [Path::new("/dev/null"), Path::new("/dev/full")].contains(&path.as_path()));
    let write = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate;
    let created = created
        .add_rules(path_beneath_rules(readable, AccessFs::ReadFile | AccessFs::ReadDir))
        .and_then(|created| created.add_rules(path_beneath_rules(sinks, write)))
        .map_err(|error| fault(&error))?;
    Option::<OwnedFd>::from(created).ok_or_else(|| fault(&"the kernel reports it and then refuses it"))
}

fn cgroup_row(off: Option<&String>) -> Protection {
    let exposed =
        "page cache and kernel memory are not counted, memory and threads beyond the other limits every 10 ms only; \
                   busy threads slow other tests down";
    Protection {
        name: CGROUP.into(),
        on: off.is_none(),
        reason: off.cloned().unwrap_or_default(),
        exposed: off.map_or("", |_| exposed).into(),
    }
}

/// Look up a field of the plan.
pub fn field<'a>(plan: &'a Value, name: &str) -> Option<&'a Value> {
    match plan {
        Value::Dict(items) => items
            .iter()
            .find(|(key, _)| *key == Value::Str(name.into()))
            .map(|(_, value)| value),
        _ => None,
    }
}

fn paths(plan: &Value) -> Vec<PathBuf> {
    let Some(Value::List(items)) = field(plan, "readable") else {
        return Vec::new();
    };
    items.iter().filter_map(text).map(PathBuf::from).collect()
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::Str(bytes) => String::from_utf8(bytes.clone()).ok(),
        _ => None,
    }
}

fn report(plan: &Value) -> Option<Vec<Protection>> {
    let Some(Value::List(rows)) = field(plan, "report") else {
        return None;
    };
    rows.iter()
        .map(|row| match row {
            Value::Tuple(cells) => match cells.as_slice() {
                [name, Value::Bool(on), reason, exposed] => Some(Protection {
                    name: text(name)?,
                    on: *on,
                    reason: text(reason)?,
                    exposed: text(exposed)?,
                }),
                _ => None,
            },
            _ => None,
        })
        .collect()
}
