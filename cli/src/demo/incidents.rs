//! What goes wrong inside functions: trouble and attacks that show in their logs alone.
//!
//! [`KINDS`] has the same form as the attacks on accounts. Each adds invocations to a function for some
//! twenty seconds: failing ones, far too many, ones that run into their time or memory limit, or ones that
//! write what no function should.

use super::attacks::{Kind, Plan, Scene};
use super::functions::Ending;

/// Every incident, in the order in which they come.
pub(crate) const KINDS: [Kind; 6] = [
    Kind {
        name: "error_spike",
        title: "A function fails on most calls",
        expect: &[],
        plan: error_spike,
    },
    Kind {
        name: "secret_in_log",
        title: "A function writes a secret access key to its log",
        expect: &[],
        plan: secret_in_log,
    },
    Kind {
        name: "invocation_surge",
        title: "A function is called a hundred times as often as usual",
        expect: &[],
        plan: invocation_surge,
    },
    Kind {
        name: "timeout_burst",
        title: "A function runs into its time limit again and again",
        expect: &[],
        plan: timeout_burst,
    },
    Kind {
        name: "env_access",
        title: "Code in a function reads the environment of its process",
        expect: &[],
        plan: env_access,
    },
    Kind {
        name: "out_of_memory",
        title: "A function is killed for want of memory",
        expect: &[],
        plan: out_of_memory,
    },
];

/// `count` invocations of one function over `seconds`.
pub(crate) fn calls(
    scene: &mut Scene<'_>,
    count: i64,
    seconds: i64,
    ending: Ending,
    say: Option<&str>,
) -> Plan {
    let function = scene.rng.range(0, 7) as usize;
    let mut line_ids = Vec::new();
    for i in 0..count {
        let millis = scene.start * 1_000 + i * seconds * 1_000 / count + scene.rng.range(0, 300);
        line_ids.extend(scene.functions.invoke(function, millis, ending, say));
    }
    let lasts = if ending == Ending::Timeout {
        scene.functions.timeout(function) / 1_000
    } else {
        1
    };
    Plan {
        line_ids,
        lines_end: scene.start + seconds + lasts,
        account: scene.org.accounts[0].id.into(),
        actor: scene.functions.name(function).into(),
        ..Plan::default()
    }
}

fn error_spike(scene: &mut Scene<'_>) -> Plan {
    calls(scene, 40, 20, Ending::Error, None)
}

fn invocation_surge(scene: &mut Scene<'_>) -> Plan {
    calls(scene, 900, 25, Ending::Success, None)
}

fn timeout_burst(scene: &mut Scene<'_>) -> Plan {
    calls(scene, 14, 12, Ending::Timeout, None)
}

fn out_of_memory(scene: &mut Scene<'_>) -> Plan {
    calls(scene, 4, 10, Ending::OutOfMemory, None)
}

fn secret_in_log(scene: &mut Scene<'_>) -> Plan {
    // The example key of the AWS manuals, made up by them.
    let line =
        "settings: region=us-east-1 AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
    calls(scene, 2, 6, Ending::Success, Some(line))
}

fn env_access(scene: &mut Scene<'_>) -> Plan {
    calls(
        scene,
        2,
        6,
        Ending::Success,
        Some("open /proc/self/environ: 1433 bytes read"),
    )
}
