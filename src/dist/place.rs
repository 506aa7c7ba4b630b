//! Which rank of how many this process is, as its launcher says in the environment. Slurm's and Open MPI's variables are
//! read as their manuals have them; neither was run.

use crate::error::{Error, Result};

/// Reads a variable of the environment.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Who started the ranks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Launcher {
    /// torchrun, or whoever sets its variables.
    Torchrun,
    /// Open MPI's mpirun.
    OpenMpi,
    /// Slurm's srun.
    Slurm,
}

impl Launcher {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Launcher::Torchrun => "torchrun",
            Launcher::OpenMpi => "Open MPI",
            Launcher::Slurm => "Slurm",
        }
    }
}

/// A process's place among the ranks of a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// This process, from 0.
    pub rank: usize,
    /// Processes of the run.
    pub size: usize,
    /// This process among those on its machine, from 0: its card.
    pub local_rank: usize,
    /// Processes of the run on this machine; 1 under Slurm, which gives each process its processors.
    pub local_size: usize,
    /// Where rank 0 is.
    pub address: String,
    /// The port rank 0 listens on, where the launcher has named one.
    pub port: Option<u16>,
    /// How often the run was started again: processes of two rounds are none of one run.
    pub round: u64,
    /// What the launcher calls the run, empty where it has no name: another run may listen at the same port.
    pub run: String,
    /// Whose variables these are.
    pub launcher: Launcher,
}

impl Place {
    /// The place that `env` says, none where this process is alone.
    ///
    /// torchrun's variables come first, then Open MPI's, then Slurm's: either of the former may have been started by Slurm,
    /// whose variables are then those of its daemons. torchrun holds MASTER_PORT itself, so the ranks meet at the next one.
    pub fn of(env: Lookup) -> Result<Option<Place>> {
        let set = |name: &str| env(name).is_some_and(|value| !value.trim().is_empty());
        // One of the two alone is some container's, and starts nobody.
        if set("WORLD_SIZE") && set("RANK") {
            torchrun(env)
        } else if set("OMPI_COMM_WORLD_SIZE") {
            open_mpi(env)
        } else if set("SLURM_PROCID") && set("SLURM_STEP_NUM_TASKS") {
            slurm(env)
        } else {
            Ok(None)
        }
    }
}

fn torchrun(env: Lookup) -> Result<Option<Place>> {
    let Some((rank, size)) = rank_of(env, "RANK", "WORLD_SIZE")? else { return Ok(None) };
    Ok(Some(Place {
        rank,
        size,
        local_rank: number(env, "LOCAL_RANK", 0..=size - 1)?,
        local_size: optional(env, "LOCAL_WORLD_SIZE", 1..=size)?.unwrap_or(1),
        address: text(env, "MASTER_ADDR", "where rank 0 is")?,
        port: port(env)?,
        round: restarts(env)?,
        run: env("TORCHELASTIC_RUN_ID").unwrap_or_default(),
        launcher: Launcher::Torchrun,
    }))
}

fn open_mpi(env: Lookup) -> Result<Option<Place>> {
    let Some((rank, size)) = rank_of(env, "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE")? else { return Ok(None) };
    Ok(Some(Place {
        rank,
        size,
        local_rank: number(env, "OMPI_COMM_WORLD_LOCAL_RANK", 0..=size - 1)?,
        local_size: optional(env, "OMPI_COMM_WORLD_LOCAL_SIZE", 1..=size)?.unwrap_or(1),
        address: text(env, "MASTER_ADDR", "where rank 0 is: mpirun -x MASTER_ADDR=HOST")?,
        port: port(env)?,
        round: restarts(env)?,
        run: String::new(),
        launcher: Launcher::OpenMpi,
    }))
}

/// Of a task that srun has started. SLURM_STEP_NUM_TASKS is set for those alone: in a batch script or an interactive shell
/// SLURM_PROCID is 0 and SLURM_NTASKS what was asked for, and nobody has started the others.
fn slurm(env: Lookup) -> Result<Option<Place>> {
    let Some((rank, size)) = rank_of(env, "SLURM_PROCID", "SLURM_STEP_NUM_TASKS")? else { return Ok(None) };
    let job = number(env, "SLURM_JOB_ID", 0..=u64::MAX)?;
    let step = optional(env, "SLURM_STEP_ID", 0..=u64::MAX)?.unwrap_or(0);
    // Rank 0 is on the step's first node. SLURM_LAUNCH_NODE_IPADDR would be where srun was called: a login node, maybe.
    let address = match env("MASTER_ADDR").filter(|address| !address.trim().is_empty()) {
        Some(address) => address.trim().to_owned(),
        None => {
            let name = if env("SLURM_STEP_NODELIST").is_some() { "SLURM_STEP_NODELIST" } else { "SLURM_JOB_NODELIST" };
            let nodes = text(env, name, "the nodes of the job")?;
            first_host(&nodes).ok_or_else(|| Error::input(name, nodes.as_str(), "a list such as node[01-04,7]"))?
        }
    };
    // Below the ports that systems hand out, another one for each step; another job's on the same node may be the same,
    // seldom, and is told from this one by its name.
    let derived = 10_000 + (job % 20_000 + step % 20_000 * 7919) % 20_000;
    Ok(Some(Place {
        rank,
        size,
        local_rank: number(env, "SLURM_LOCALID", 0..=size - 1)?,
        local_size: 1,
        address,
        port: port(env)?.or(u16::try_from(derived).ok()),
        round: restarts(env)?,
        run: format!("Slurm {job}.{step}"),
        launcher: Launcher::Slurm,
    }))
}

/// How often torchrun has started the processes again, and Slurm the job.
pub fn restarts(env: Lookup) -> Result<u64> {
    let count = |name| optional(env, name, 0..=u64::from(u32::MAX)).map(|count| count.unwrap_or(0));
    Ok(count("TORCHELASTIC_RESTART_COUNT")? + count("SLURM_RESTART_COUNT")?)
}

/// The rank and the number of ranks, none where that is 1.
fn rank_of(env: Lookup, rank: &str, size: &str) -> Result<Option<(usize, usize)>> {
    let size = number(env, size, 1..=1 << 20)?;
    if size == 1 {
        return Ok(None);
    }
    Ok(Some((number(env, rank, 0..=size - 1)?, size)))
}

/// The port after MASTER_PORT.
fn port(env: Lookup) -> Result<Option<u16>> {
    Ok(optional(env, "MASTER_PORT", 1..=u16::MAX - 1)?.map(|port| port + 1))
}

fn text(env: Lookup, name: &str, expected: &str) -> Result<String> {
    match env(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty()) {
        Some(value) => Ok(value),
        None => Err(Error::input(format!("the environment's {name}"), "nothing", expected)),
    }
}

fn optional<T>(env: Lookup, name: &str, range: std::ops::RangeInclusive<T>) -> Result<Option<T>>
where
    T: std::str::FromStr + PartialOrd + std::fmt::Display,
{
    let Some(value) = env(name).filter(|value| !value.trim().is_empty()) else { return Ok(None) };
    let found = value.trim().parse().ok().filter(|number| range.contains(number));
    let expected = || format!("a whole number from {} to {}", range.start(), range.end());
    found.map(Some).ok_or_else(|| Error::input(format!("the environment's {name}"), value.as_str(), expected()))
}

fn number<T>(env: Lookup, name: &str, range: std::ops::RangeInclusive<T>) -> Result<T>
where
    T: std::str::FromStr + PartialOrd + std::fmt::Display,
{
    let expected = format!("a whole number from {} to {}", range.start(), range.end());
    optional(env, name, range)?.ok_or_else(|| Error::input(format!("the environment's {name}"), "nothing", expected))
}

/// The first of Slurm's list of hosts: `node[01-04,7],login` begins with `node01`. None where it is no such list.
fn first_host(list: &str) -> Option<String> {
    let mut host = String::new();
    let mut rest = list.trim();
    // A name may have several brackets (`rack[1-2]n[01-16]`); the first of each, in all, is the first host.
    while let Some(at) = rest.find(['[', ',']).filter(|&at| rest.as_bytes()[at] == b'[') {
        let (inside, after) = rest[at + 1..].split_once(']')?;
        let first = inside.split([',', '-']).next().filter(|first| first.bytes().all(|b| b.is_ascii_digit()))?;
        if first.is_empty() {
            return None;
        }
        host.push_str(&rest[..at]);
        host.push_str(first);
        rest = after;
    }
    host.push_str(rest.split(',').next()?);
    Some(host).filter(|host| !host.is_empty() && !host.contains(['[', ']', ' ']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(variables: &[(&str, &str)]) -> Result<Option<Place>> {
        Place::of(&|name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    fn fault(variables: &[(&str, &str)]) -> String {
        let error = place(variables).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        error.to_string()
    }

    const TORCHRUN: [(&str, &str); 8] = [
        ("RANK", "5"),
        ("WORLD_SIZE", "8"),
        ("LOCAL_RANK", "1"),
        ("LOCAL_WORLD_SIZE", "4"),
        ("MASTER_ADDR", "node-1"),
        ("MASTER_PORT", "29500"),
        ("TORCHELASTIC_RESTART_COUNT", "2"),
        ("TORCHELASTIC_RUN_ID", "job-7"),
    ];

    const SLURM: [(&str, &str); 6] = [
        ("SLURM_PROCID", "3"),
        ("SLURM_STEP_NUM_TASKS", "4"),
        ("SLURM_LOCALID", "1"),
        ("SLURM_JOB_ID", "200505"),
        ("SLURM_STEP_NODELIST", "gnode[10,20,25,37]"),
        ("SLURM_LAUNCH_NODE_IPADDR", "10.0.0.1"),
    ];

    #[test]
    fn torchrun_holds_its_port_and_names_all() {
        let of = place(&TORCHRUN).unwrap().unwrap();
        assert_eq!((of.rank, of.size, of.local_rank, of.local_size), (5, 8, 1, 4));
        assert_eq!((of.address.as_str(), of.port, of.round), ("node-1", Some(29501), 2));
        assert_eq!(of.run, "job-7");
        // Under Slurm and Open MPI alike.
        let all: Vec<_> = SLURM.iter().chain(&TORCHRUN).chain(&[("OMPI_COMM_WORLD_SIZE", "2")]).copied().collect();
        assert_eq!(place(&all).unwrap().unwrap().launcher, Launcher::Torchrun);
    }

    #[test]
    fn slurm_meets_at_the_first_node_of_the_step() {
        let of = place(&SLURM).unwrap().unwrap();
        assert_eq!((of.rank, of.size, of.local_rank, of.local_size), (3, 4, 1, 1));
        assert_eq!((of.address.as_str(), of.port, of.run.as_str()), ("gnode10", Some(10_505), "Slurm 200505.0"));
        let again = place(&[&SLURM[..], &[("SLURM_RESTART_COUNT", "1"), ("SLURM_STEP_ID", "1")]].concat());
        let again = again.unwrap().unwrap();
        assert_eq!((again.round, again.port), (1, Some(18_424)));
        let asked = place(&[&SLURM[..], &[("MASTER_ADDR", "head"), ("MASTER_PORT", "6000")]].concat());
        let asked = asked.unwrap().unwrap();
        assert_eq!((asked.address.as_str(), asked.port), ("head", Some(6001)));
    }

    #[test]
    fn open_mpi_is_told_where() {
        let mpi = [
            ("OMPI_COMM_WORLD_RANK", "1"),
            ("OMPI_COMM_WORLD_SIZE", "2"),
            ("OMPI_COMM_WORLD_LOCAL_RANK", "1"),
            ("MASTER_ADDR", "head"),
            ("MASTER_PORT", "6000"),
        ];
        // mpirun starts its daemons by srun: what Slurm says is theirs.
        let of = place(&[&mpi[..], &SLURM].concat()).unwrap().unwrap();
        assert_eq!((of.rank, of.size, of.port, of.launcher), (1, 2, Some(6001), Launcher::OpenMpi));
        assert!(fault(&mpi[..3]).contains("MASTER_ADDR"));
    }

    #[test]
    fn one_process_is_alone_wherever_it_runs() {
        assert_eq!(place(&[]).unwrap(), None);
        assert_eq!(place(&[("WORLD_SIZE", "1"), ("RANK", "0")]).unwrap(), None);
        assert_eq!(place(&[("WORLD_SIZE", "8")]).unwrap(), None);
        assert_eq!(place(&[("RANK", "3")]).unwrap(), None);
        assert_eq!(place(&[("OMPI_COMM_WORLD_SIZE", "1")]).unwrap(), None);
        // A batch script, or the shell of an allocation, of four tasks that nobody has started.
        let batch = [("SLURM_PROCID", "0"), ("SLURM_NTASKS", "4"), ("SLURM_LOCALID", "0"), ("SLURM_JOB_ID", "7")];
        assert_eq!(place(&batch).unwrap(), None);
        assert_eq!(place(&[("SLURM_NTASKS", "4"), ("SLURM_JOB_ID", "7")]).unwrap(), None);
        let shell = [("SLURM_PROCID", "0"), ("SLURM_STEP_NUM_TASKS", "1"), ("SLURM_NTASKS", "4")];
        assert_eq!(place(&shell).unwrap(), None);
    }

    #[test]
    fn a_wrong_variable_is_named() {
        for (name, value) in [
            ("RANK", "8"),
            ("RANK", "one"),
            ("WORLD_SIZE", "0"),
            ("WORLD_SIZE", "many"),
            ("LOCAL_RANK", "-1"),
            ("LOCAL_RANK", ""),
            ("MASTER_ADDR", " "),
            ("MASTER_PORT", "65535"),
            ("MASTER_PORT", "http"),
            ("TORCHELASTIC_RESTART_COUNT", "x"),
        ] {
            let variables = TORCHRUN.map(|(key, was)| if key == name { (key, value) } else { (key, was) });
            let text = fault(&variables);
            assert!(text.contains(&format!("the environment's {name}: found")), "{name}={value}: {text}");
        }
        let no_list = SLURM.map(|(key, was)| if key == "SLURM_STEP_NODELIST" { (key, "node[") } else { (key, was) });
        assert!(fault(&no_list).contains("SLURM_STEP_NODELIST: found node["));
    }

    #[test]
    fn the_first_host_of_a_list() {
        for (list, first) in [
            ("node[01-04,7]", "node01"),
            ("gnode[10,20]", "gnode10"),
            ("a,b[1-2]", "a"),
            ("rack[1-2]n[01-16].local,x", "rack1n01.local"),
            ("node7", "node7"),
            ("10.0.0.1", "10.0.0.1"),
        ] {
            assert_eq!(first_host(list).as_deref(), Some(first), "{list}");
        }
        for list in ["", "node[", "node[]", "node[a-b]", "node]", "[,1]"] {
            assert_eq!(first_host(list), None, "{list}");
        }
    }
}
