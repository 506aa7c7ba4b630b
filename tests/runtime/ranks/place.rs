//! Tests how a process finds its rank in the environment.

use omr_base::error::Result;
use omr_runtime::ranks::{Launcher, Place};

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
    // torchrun's variables also take precedence over those of Slurm and Open MPI.
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
    // mpirun starts its daemons with srun, so Slurm's variables describe the daemons.
    let of = place(&[&mpi[..], &SLURM].concat()).unwrap().unwrap();
    assert_eq!((of.rank, of.size, of.port, of.launcher), (1, 2, Some(6001), Launcher::OpenMpi));
    let text = fault(&mpi[..3]);
    assert!(text.contains("environment variables MASTER_ADDR and MASTER_PORT: found nothing"), "{text}");
    assert!(text.contains("mpirun -x"), "{text}");
}

fn split(text: &str) -> Vec<(&str, &str)> {
    text.split(' ').filter_map(|variable| variable.split_once('=')).collect()
}

const MASTER: [(&str, &str); 2] = [("MASTER_ADDR", "head"), ("MASTER_PORT", "6000")];

#[test]
fn each_launcher_has_its_variables() {
    let slurm = "SLURM_PROCID=1 SLURM_STEP_NUM_TASKS=2 SLURM_LOCALID=0 SLURM_JOB_ID=7";
    // srun started one Hydra daemon per node.
    let under_slurm = format!("{slurm} PMI_RANK=2 PMI_SIZE=3 MPI_LOCALRANKID=1");
    let cases = [
        ("PMI_RANK=2 PMI_SIZE=3 MPI_LOCALRANKID=1 MPI_LOCALNRANKS=2", Launcher::Pmi, 2),
        ("PMI_RANK=2 PMI_SIZE=3 PMI_LOCAL_RANK=1", Launcher::Pmi, 1),
        (&under_slurm, Launcher::Pmi, 1),
    ];
    for (variables, launcher, local_size) in cases {
        let of = place(&[split(variables), MASTER.to_vec()].concat()).unwrap().unwrap();
        assert_eq!((of.rank, of.size, of.local_rank, of.launcher), (2, 3, 1, launcher), "{variables:?}");
        assert_eq!((of.local_size, of.address.as_str(), of.port), (local_size, "head", Some(6001)), "{variables:?}");
    }
    // srun can support PMI itself.
    let spoken = [&SLURM[..], &[("PMI_RANK", "3"), ("PMI_SIZE", "4"), ("PMIX_RANK", "3")]].concat();
    assert_eq!(place(&spoken).unwrap().unwrap().launcher, Launcher::Slurm);
}

#[test]
fn jsrun_has_its_variables_and_brackets_are_no_part_of_an_address() {
    let jsrun = "JSM_NAMESPACE_RANK=2 JSM_NAMESPACE_SIZE=3 JSM_NAMESPACE_LOCAL_RANK=1 PMIX_RANK=2";
    let of = place(&[split(jsrun), split("MASTER_ADDR=[fd77::1] MASTER_PORT=6000")].concat()).unwrap().unwrap();
    assert_eq!((of.rank, of.size, of.local_rank, of.launcher), (2, 3, 1, Launcher::Jsrun));
    assert_eq!((of.address.as_str(), of.port), ("fd77::1", Some(6001)));
    assert!(fault(&split(jsrun)).contains("environment variables MASTER_ADDR and MASTER_PORT: found nothing"));
    assert!(fault(&split("JSM_NAMESPACE_SIZE=2")).contains("JSM_NAMESPACE_SIZE=2"));
}

#[test]
fn a_start_that_is_not_understood_is_refused() {
    for found in ["PMI_SIZE=3", "OMPI_COMM_WORLD_SIZE=2"] {
        let text = fault(&split(&format!("{found} WORLD_SIZE=2 SLURM_PROCID=0")));
        assert!(text.starts_with(&format!("the environment: found {found}, expected")), "{text}");
        assert!(text.contains("set RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT"), "{text}");
    }
    let refused = [
        ("PALS", "PALS_RANKID=2 PALS_LOCAL_RANKID=1 PMI_RANK=2 PMI_SIZE=3"),
        ("PALS", "PALS_RANKID=0 PMIX_RANK=0"),
        ("Flux", "FLUX_TASK_RANK=2 FLUX_JOB_SIZE=3 FLUX_TASK_LOCAL_ID=1 PMI_RANK=2 PMI_SIZE=3"),
        ("Flux", "FLUX_JOB_SIZE=2"),
        ("PMIx", "PMIX_RANK=2 PMIX_LOCAL_RANK=1"),
    ];
    for (name, variables) in refused {
        let text = fault(&split(variables));
        let sentence =
            format!("the launcher: found {name}, which is not supported, expected torchrun, Slurm, Open MPI");
        assert!(text.starts_with(&sentence), "{text}");
        assert!(text.contains("set RANK, WORLD_SIZE"), "{text}");
        // Any launcher can be used if it sets torchrun's variables.
        assert_eq!(
            place(&[split(variables), TORCHRUN.to_vec()].concat()).unwrap().unwrap().launcher,
            Launcher::Torchrun
        );
    }
    assert_eq!(place(&split("PALS_RANKID=0 PALS_SIZE=1 PMI_RANK=0 PMI_SIZE=1")).unwrap(), None);
    assert_eq!(place(&split("FLUX_TASK_RANK=0 FLUX_JOB_SIZE=1")).unwrap(), None);
    assert_eq!(place(&split("PMI_SIZE=1")).unwrap(), None);
    assert_eq!(place(&split("PMI_SIZE=3 WORLD_SIZE=1 RANK=0")).unwrap(), None);
}

#[test]
fn one_process_is_alone_wherever_it_runs() {
    assert_eq!(place(&[]).unwrap(), None);
    assert_eq!(place(&[("WORLD_SIZE", "1"), ("RANK", "0")]).unwrap(), None);
    assert_eq!(place(&[("WORLD_SIZE", "8")]).unwrap(), None);
    assert_eq!(place(&[("RANK", "3")]).unwrap(), None);
    assert_eq!(place(&[("OMPI_COMM_WORLD_SIZE", "1")]).unwrap(), None);
    // A batch script or a shell of an allocation with four tasks, none of which was started.
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
        assert!(text.contains(&format!("environment variable {name}: found")), "{name}={value}: {text}");
    }
    let no_list = SLURM.map(|(key, was)| if key == "SLURM_STEP_NODELIST" { (key, "node[") } else { (key, was) });
    assert!(fault(&no_list).contains("SLURM_STEP_NODELIST: found node["));
}

#[test]
fn the_first_host_of_a_list() {
    let address = |list| {
        let variables = SLURM.map(|(key, was)| if key == "SLURM_STEP_NODELIST" { (key, list) } else { (key, was) });
        place(&variables).map(|place| place.unwrap().address)
    };
    for (list, first) in [
        ("node[01-04,7]", "node01"),
        ("gnode[10,20]", "gnode10"),
        ("a,b[1-2]", "a"),
        ("rack[1-2]n[01-16].local,x", "rack1n01.local"),
        ("node7", "node7"),
        ("10.0.0.1", "10.0.0.1"),
    ] {
        assert_eq!(address(list).unwrap(), first, "{list}");
    }
    for list in ["", "node[", "node[]", "node[a-b]", "node]", "[,1]"] {
        let text = address(list).unwrap_err().to_string();
        assert!(text.contains("SLURM_STEP_NODELIST"), "{list}: {text}");
    }
}
