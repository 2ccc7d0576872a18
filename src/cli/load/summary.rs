//! What came of a run, in lines for people.

use std::fmt::Write as _;
use std::path::PathBuf;

use beast::load::latency::Latency;
use beast::load::result::{Counts, Knee, Ledger, LoopKind, Ramp, RunResult};

pub(super) fn text(run: &RunResult) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write(&mut out, run);
    out
}

/// Where the files of the report are.
pub(super) fn written(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| format!("{:<10} {}\n", "written", path.display())).collect()
}

fn write(out: &mut String, run: &RunResult) -> std::fmt::Result {
    let setup = &run.setup;
    let how = match (setup.loop_kind, setup.rate_per_s, setup.window) {
        (LoopKind::Open, Some(rate), _) => format!("open loop, {rate:.0}/s"),
        (LoopKind::Open, None, _) => "open loop".to_owned(),
        (LoopKind::Closed, _, Some(window)) => format!("closed loop, {window} under way"),
        (LoopKind::Closed, _, None) => "closed loop".to_owned(),
    };
    let cpus: Vec<_> =
        setup.cpus.iter().map(|cpu| cpu.map_or("any".to_owned(), |cpu| cpu.to_string())).collect();
    let pipeline = if setup.pipeline > 1 { format!(", {} pipelined", setup.pipeline) } else { String::new() };
    writeln!(
        out,
        "{:<10} {} {}, {how}, {} sockets{pipeline}; threads on processors {}, processes {}",
        setup.mode,
        setup.protocol,
        setup.address,
        setup.sockets,
        cpus.join(", "),
        setup.processes
    )?;
    if run.interrupted {
        writeln!(out, "{:<10} it was told to stop; this is what ran", "stopped")?;
    }
    let counts = &run.counts;
    writeln!(out, "{:<10} {} in {:.2} s", "sent", counts.sent, run.sending_s())?;
    writeln!(out, "{:<10} {}, {:.0}/s", "answered", counts.answered, run.rate_per_s())?;
    writeln!(
        out,
        "{:<10} {}; of answers within {} s; {}",
        "latency",
        latency(&run.latency),
        setup.lost_after_s,
        setup.loop_kind.caption()
    )?;
    others(out, counts)?;
    ledger(out, &run.ledger)?;
    generator(out, run)?;
    server(out, run)?;
    if let Some(table) = &run.ramp {
        ramp(out, table)?;
    }
    if let Some(search) = &run.knee {
        knee(out, search)?;
    }
    for criterion in &run.criteria {
        let verdict = if criterion.pass { "pass" } else { "FAIL" };
        let (name, found, needed) = (&criterion.name, &criterion.found, &criterion.needed);
        writeln!(out, "{verdict:<10} {name}: {found}; needs {needed}")?;
    }
    Ok(())
}

fn latency(latency: &Latency) -> String {
    let ms = |ns: u64| ns as f64 / 1e6;
    let Latency { p50_ns, p90_ns, p99_ns, p999_ns, max_ns, .. } = *latency;
    format!(
        "p50 {:.3} ms, p90 {:.3}, p99 {:.3}, p99.9 {:.3}, max {:.3}",
        ms(p50_ns),
        ms(p90_ns),
        ms(p99_ns),
        ms(p999_ns),
        ms(max_ns)
    )
}

fn others(out: &mut String, counts: &Counts) -> std::fmt::Result {
    for (reason, count) in &counts.refused {
        writeln!(out, "{:<10} {count} {reason}", "refused")?;
    }
    for (name, count, what) in [
        ("wrong", counts.wrong, "answered with something else"),
        ("stray", counts.stray, "that answer nothing that was asked"),
        ("duplicate", counts.duplicate, "further answers to answered requests"),
        ("late", counts.late, "answered after they had been given up"),
        ("lost", u64::try_from(counts.lost).unwrap_or(0), "without an answer"),
        ("held back", counts.held_back, "not sent, too many were under way"),
        ("unsent", counts.send_failed, "that the kernel did not take"),
        ("closed", counts.port_closed, "times the kernel said that nobody listens"),
        ("reopened", counts.reconnected, "connections the server closed or gave no answer on"),
        ("dropped", counts.dropped, "answers dropped because our sockets were full"),
    ] {
        if count > 0 {
            writeln!(out, "{name:<10} {count} {what}")?;
        }
    }
    Ok(())
}

fn ledger(out: &mut String, ledger: &Ledger) -> std::fmt::Result {
    let known = |count: Option<u64>| count.map_or("unknown".to_owned(), |count| count.to_string());
    writeln!(
        out,
        "{:<10} sent {} = answered {} + refused {} + wrong {} + late {} + nobody listened {} + dropped by the server's \
         kernel {} + unanswered by the server {} + dropped by ours {} + lost on the way {}{}; the server's side is told \
         by {}",
        "ledger",
        ledger.sent,
        ledger.answered,
        ledger.refused,
        ledger.wrong,
        ledger.late,
        ledger.port_closed,
        known(ledger.dropped_by_server_kernel),
        known(ledger.unanswered_by_server),
        ledger.dropped_by_our_kernel,
        ledger.lost_on_the_way,
        if ledger.excess > 0 { format!(" - {} of others", ledger.excess) } else { String::new() },
        ledger.told_by.as_deref().unwrap_or("nobody")
    )
}

fn generator(out: &mut String, run: &RunResult) -> std::fmt::Result {
    let generator = &run.generator;
    writeln!(
        out,
        "{:<10} {:.2} us of its own processor time an exchange, {:.0} % busy; {:.1} MiB",
        "generator",
        generator.busy_us_per_exchange,
        generator.busy * 100.0,
        generator.memory_bytes_max as f64 / 1_048_576.0
    )?;
    if let Some(schedule) = &generator.schedule {
        writeln!(
            out,
            "{:<10} {}: {} of {} requests sent, {} late by its own fault; lag p50 {:.3} ms, p99 {:.3}, max {:.3}",
            "schedule",
            if schedule.kept { "kept" } else { "NOT KEPT" },
            schedule.sent,
            schedule.scheduled,
            schedule.late,
            schedule.lag.p50_ns as f64 / 1e6,
            schedule.lag.p99_ns as f64 / 1e6,
            schedule.lag.max_ns as f64 / 1e6
        )?;
    }
    for note in &generator.notes {
        writeln!(out, "{:<10} {note}", "note")?;
    }
    Ok(())
}

fn server(out: &mut String, run: &RunResult) -> std::fmt::Result {
    let server = &run.server;
    let mut facts = Vec::new();
    facts.extend(server.engine.as_ref().map(|engine| format!("engine {engine}")));
    facts.extend(server.shards.map(|shards| format!("{shards} shards")));
    facts.extend(server.cpu_us_per_answer.map(|us| format!("{us:.2} us of processor time an answer")));
    facts.extend(server.memory_bytes_max.map(|bytes| format!("{:.1} MiB", bytes as f64 / 1_048_576.0)));
    if !facts.is_empty() {
        writeln!(out, "{:<10} {}", "server", facts.join(", "))?;
    }
    if let Some(endurance) = &run.endurance {
        let mib = |bytes: f64| bytes / 1_048_576.0;
        let memory = endurance
            .memory_bytes_per_hour
            .map_or("memory unknown".to_owned(), |bytes| format!("memory {:+.2} MiB an hour", mib(bytes)));
        writeln!(
            out,
            "{:<10} {memory}; p99 {:.3} ms in the first quarter, {:.3} ms in the last",
            "drift",
            endurance.p99_ns_first as f64 / 1e6,
            endurance.p99_ns_last as f64 / 1e6
        )?;
    }
    Ok(())
}

fn ramp(out: &mut String, ramp: &Ramp) -> std::fmt::Result {
    writeln!(
        out,
        "level   requests  at a time   answered        /s    p50 ms    p99 ms  verdict   (scale {}; closed loop)",
        ramp.scale
    )?;
    for level in &ramp.levels {
        let failed: Vec<_> = level.criteria.iter().filter(|criterion| !criterion.pass).collect();
        let why: Vec<_> =
            failed.iter().map(|c| format!("{}: {}, needs {}", c.name, c.found, c.needed)).collect();
        writeln!(
            out,
            "{:>5} {:>10} {:>10} {:>10} {:>9.0} {:>9.3} {:>9.3}  {}  {}",
            level.number,
            level.requests,
            level.concurrency,
            level.counts.answered,
            level.rate_per_s,
            level.latency.p50_ns as f64 / 1e6,
            level.latency.p99_ns as f64 / 1e6,
            if level.pass { "pass" } else { "FAIL" },
            why.join("; ")
        )?;
    }
    Ok(())
}

fn knee(out: &mut String, knee: &Knee) -> std::fmt::Result {
    writeln!(out, "     rate/s  answered/s    p50 ms    p99 ms unanswered %  verdict   (open loop)")?;
    for step in &knee.steps {
        writeln!(
            out,
            "{:>11.0} {:>11.0} {:>9.3} {:>9.3} {:>12.4}  {}{}",
            step.rate_per_s,
            step.answered_per_s,
            step.latency.p50_ns as f64 / 1e6,
            step.latency.p99_ns as f64 / 1e6,
            step.loss * 100.0,
            if step.pass { "pass" } else { "fail" },
            if step.kept_schedule { "" } else { "; the generator did not keep its schedule" }
        )?;
    }
    match knee.rate_per_s {
        Some(rate) => writeln!(out, "{:<10} {rate:.0}/s, limited by: {}", "knee", knee.limited_by),
        None => writeln!(out, "{:<10} none, limited by: {}", "knee", knee.limited_by),
    }
}
