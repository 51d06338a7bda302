//! Records, effects and state in words.

use seawall_kernel::agents::effect::{Effect, Grant, Notice, Perform, Reply};
use seawall_kernel::agents::{Agents, Shard};
use seawall_model::durable::{AgentRow, Item, Message, RunRow, RunState};
use seawall_model::effect::{Answer, Spend, Work};
use seawall_model::journal::{Ending, Entry, Event, Next, Planned, Turn};
use seawall_model::{Address, At, Payload};

pub(crate) fn text(payload: &Payload) -> String {
    match payload.here() {
        Some([]) => String::new(),
        Some(bytes) => format!(" \"{}\"", String::from_utf8_lossy(bytes)),
        None => " a blob".to_owned(),
    }
}

fn answer(answer: &Answer) -> String {
    match answer {
        Answer::Done(body) => format!("done{}", text(body)),
        Answer::Error(body) => format!("error{}", text(body)),
        Answer::Failed { code, why } => format!("failed {} ({why})", code.as_str()),
    }
}

fn ending(ending: &Ending) -> String {
    match ending {
        Ending::Done(output) => format!("done{}", text(output)),
        Ending::Failed { code, why } => format!("failed {} ({why})", code.as_str()),
        Ending::Cancelled { by } => format!("cancelled by {by}"),
    }
}

fn state(state: &RunState) -> String {
    match state {
        RunState::Queued | RunState::Active => state.as_str().to_owned(),
        RunState::Done { output } => format!("done{}", text(output)),
        RunState::Failed { code, why } => format!("failed {} ({why})", code.as_str()),
        RunState::Cancelled { by } => format!("cancelled by {by}"),
    }
}

/// Who did it, where that was nobody inside.
fn from_outside(by: Option<&std::sync::Arc<str>>) -> String {
    by.map_or(String::new(), |by| format!(" by {by}"))
}

fn message(message: &Message) -> String {
    let from = message.from.as_ref().map_or("outside", |from| from.agent.as_str());
    let name = message.name.as_ref().map_or(String::new(), |name| format!(" of {name}"));
    format!("mail{name} from {from}{}", text(&message.body))
}

fn amounts(spend: Spend) -> String {
    let each = [
        ("tokens", spend.tokens.0),
        ("money", spend.money.0),
        ("calls", spend.calls),
        ("steps", spend.steps),
    ];
    let some: Vec<String> = each
        .iter()
        .filter(|(_, amount)| *amount > 0)
        .map(|(name, amount)| format!("{name} {amount}"))
        .collect();
    if some.is_empty() { "nothing".to_owned() } else { some.join(", ") }
}

fn when(at: At, start: u64) -> String {
    match at {
        At::MAX => "for ever".to_owned(),
        at => format!("until {}", at.0.saturating_sub(start) / 1_000),
    }
}

fn item(item: &Item) -> String {
    match item {
        Item::Task { run } => format!("task of {run}"),
        Item::Answer { effect, answer: said, .. } => format!("{effect} {}", answer(said)),
        Item::Mail(letter) => message(letter),
        Item::Note(note) => format!("note ({note})"),
    }
}

fn work(work: &Work) -> String {
    let object = work.object();
    let object = if object.is_empty() { String::new() } else { format!(" {object}") };
    let more = match work {
        Work::Tool { args, .. } => text(args),
        Work::Message { body, .. } | Work::Publish { body, .. } => text(body),
        Work::Promise { question } => text(question),
        Work::Put { value: Some(value), .. } => text(value),
        _ => String::new(),
    };
    let kind = if matches!(work, Work::Link { on: false, .. }) { "unlink" } else { work.kind() };
    format!("{kind}{object}{more}")
}

fn planned(planned: &Planned) -> String {
    let kind = work(&planned.ask.work);
    match (&planned.refused, &planned.child) {
        (Some((code, _)), _) => format!("{kind} refused {} by rule {}", code.as_str(), planned.ruling.rule),
        (None, Some(child)) => format!("{kind} as {}", child.key),
        (None, None) if planned.reserved == Spend::default() => kind,
        (None, None) => format!("{kind} reserving {}", amounts(planned.reserved)),
    }
}

fn turn(turn: &Turn) -> String {
    let mut words = vec![format!("{} turn {} saw {}", turn.run, turn.number, turn.seen)];
    words.extend(turn.effects.iter().map(planned));
    words.extend(turn.note.iter().map(|note| format!("note ({note})")));
    match &turn.next {
        Next::Wait(_) => {}
        Next::End(end) => words.push(format!("end {}", ending(end))),
        Next::Again { why, .. } => words.push(format!("again ({why})")),
    }
    words.join("\n|     ")
}

fn event(event: &Event) -> String {
    match event {
        Event::Started { run, .. } => format!("{} asked by {}{}", run.key, run.by, text(&run.task)),
        Event::Turned(row) => turn(row),
        Event::Stumbled { run, why, .. } => format!("{run} ({why})"),
        Event::Attempted { effect } => effect.to_string(),
        Event::Postponed { effect, why, counts, .. } => {
            format!("{effect} ({why}){}", if *counts { " counts" } else { "" })
        }
        Event::Answered { effect, answer: said, used, by } => {
            let by = by.as_ref().map_or(String::new(), |by| format!(" by {by}"));
            let used =
                if *used == Spend::default() { String::new() } else { format!(" used {}", amounts(*used)) };
            format!("{effect} {}{by}{used}", answer(said))
        }
        Event::Doubted { effect, why } => format!("{effect} ({why})"),
        Event::Voted { effect, by, yes, args, .. } => {
            let args = args.as_ref().map_or(String::new(), text);
            format!("{effect} {} by {by}{args}", if *yes { "yes" } else { "no" })
        }
        Event::Delegated { effect, by, to } => {
            format!("{effect} to {to} by {}", by.as_deref().unwrap_or("rule"))
        }
        Event::Mailed { message: letter, by } => format!("{}{}", message(letter), from_outside(by.as_ref())),
        Event::Lettered { message: letter, why } => format!("{} {}", message(letter), why.as_str()),
        Event::Unlettered { number, sent, by } => {
            format!("{number} {} by {by}", if *sent { "sent again" } else { "thrown away" })
        }
        Event::Ended { run, ending: end } => format!("{run} {}", ending(end)),
        Event::Restarted { run, why, .. } => format!("{run} ({why})"),
        Event::Quarantined { why } => format!("({why})"),
        Event::Released { by } => format!("by {by}"),
        Event::Halted { scope, on, by } => {
            format!("{scope} {} by {by}", if *on { "stopped" } else { "goes on" })
        }
        Event::Defined { kind, version, by } => {
            format!("{kind} {} by {by}", version.as_deref().unwrap_or("removed"))
        }
        Event::Moved { run, version } => format!("{run} to version {version}"),
        Event::Put { key, value, version, who, .. } => {
            let value = value.as_ref().map_or(" removed".to_owned(), text);
            format!("{key} version {version}{value}{}", from_outside(who.as_ref()))
        }
        Event::Granted { resource, of, holder, .. } => {
            format!("{resource} token {} {} of {of} to {}", holder.token, holder.units, holder.agent.agent)
        }
        Event::Freed { resource, token, .. } => format!("{resource} token {token}"),
        Event::Tied { tie } => {
            let (how, peer) = (if tie.linked { "link with" } else { "monitor of" }, &tie.peer.agent);
            format!("{} {how} {peer} {}", tie.run, tie.effect)
        }
        Event::Untied { run, effect } => format!("{run} {effect}"),
        Event::Subscribed { topic, agent, on, .. } => {
            format!("{topic} {} {}", agent.agent, if *on { "on" } else { "off" })
        }
        _ => String::new(),
    }
}

/// A record as it stands in the shard.
pub(crate) fn entry(entry: &Entry) -> String {
    let agent = entry.record.agent.as_ref().map_or(String::new(), |agent| format!(" {}", agent.agent));
    let line = format!("| {} {}{agent} {}", entry.seq, entry.record.event.kind(), event(&entry.record.event));
    line.trim_end().to_owned()
}

fn grant(grant: &Grant) -> String {
    let items: Vec<String> = grant.items.iter().map(item).collect();
    let turn = format!("turn {} {} of {}", grant.address.agent, grant.number, grant.run.key);
    if let [only] = &items[..] {
        format!("{turn}: {only}")
    } else {
        format!("{turn}:\n  {}", items.join("\n  "))
    }
}

fn perform(perform: &Perform) -> String {
    let mut line = format!("perform {} {}", perform.effect, work(&perform.work));
    if perform.attempt > 1 {
        line.push_str(&format!(" try {}", perform.attempt));
    }
    if let (true, Work::Tool { undo: Some(undo), .. }) = (perform.undo, &perform.work) {
        line.push_str(&format!(" by {undo}"));
    }
    if let (true, Work::Tool { query: Some(query), .. }) = (perform.query, &perform.work) {
        line.push_str(&format!(", was it done? {query}"));
    }
    for path in &perform.redact {
        line.push_str(&format!(" without {path}"));
    }
    line
}

/// What is asked of the world; nothing for what is only between machine and disk.
pub(crate) fn effect(effect: &Effect) -> Option<String> {
    Some(match effect {
        Effect::Turn(row) => grant(row),
        Effect::Perform(row) => perform(row),
        Effect::Abort(effect) => format!("abort {effect}"),
        Effect::Reply(_, Reply::Started { run, address }) => format!("reply started {run} {}", address.agent),
        Effect::Reply(_, Reply::Done) => "reply done".to_owned(),
        Effect::Reply(_, Reply::Taken { before: true, .. }) => "reply taken before".to_owned(),
        Effect::Reply(_, Reply::Taken { created: true, .. }) => "reply taken by a new agent".to_owned(),
        Effect::Reply(_, Reply::Taken { .. }) => "reply taken".to_owned(),
        Effect::Reply(_, Reply::Version(version)) => format!("reply version {version}"),
        Effect::Reply(_, Reply::Refused { code, why }) => format!("reply refused {} ({why})", code.as_str()),
        Effect::Over { run, state: end } => format!("over {run} {}", state(end)),
        Effect::Notice(row) => notice(row),
        Effect::Load(_) | Effect::LoadDue { .. } | Effect::LoadValue(..) => return None,
    })
}

fn notice(notice: &Notice) -> String {
    match notice {
        Notice::Rung { address, rung, offence, .. } => {
            format!("notice {} {} for {offence}", address.agent, rung.as_str())
        }
        Notice::Quarantined { address, why } => format!("notice {} in quarantine ({why})", address.agent),
        Notice::Doubt { effect, .. } => format!("notice {effect} in doubt"),
        Notice::Asked { effect, .. } => format!("notice {effect} asks people"),
        Notice::Letter { to, why } => format!("notice letter to {} {}", to.agent, why.as_str()),
    }
}

/// The state of one thing, or of all of a sort; one line each.
pub(crate) fn show(agents: &Agents, shard: &Shard, what: &str, start: u64) -> Vec<String> {
    match what {
        "runs" => shard.runs.values().map(|row| run(row)).collect(),
        "leases" => leases(shard, start),
        "topics" => {
            shard.topics.values().map(|row| format!("{}: {}", row.topic, names(&row.agents))).collect()
        }
        "letters" => shard
            .letters
            .values()
            .map(|row| {
                format!("{} to {} {}: {}", row.number, row.to.agent, row.why.as_str(), message(&row.message))
            })
            .collect(),
        "halts" => shard.row.halts.iter().map(|stop| stop.scope.to_string()).collect(),
        "waits" => shard.agents.values().flat_map(|row| waits(agents, row, start)).collect(),
        name => {
            let row = shard.agents.values().find(|row| row.address.agent.as_str() == name);
            let row = row.unwrap_or_else(|| panic!("{name} is not in memory"));
            agent(agents, row, start)
        }
    }
}

fn names(agents: &[Address]) -> String {
    agents.iter().map(|address| address.agent.as_str()).collect::<Vec<_>>().join(" ")
}

fn run(row: &RunRow) -> String {
    let mut line = format!("{} {} {}", row.key, row.agent.agent, state(&row.state));
    if row.parent.is_some() {
        line.push_str(&format!(", below {}", row.root));
    }
    line.push_str(&format!(", used {}", amounts(row.used)));
    if row.reserved != Spend::default() {
        line.push_str(&format!(", reserved {}", amounts(row.reserved)));
    }
    line
}

fn leases(shard: &Shard, start: u64) -> Vec<String> {
    let holders = |row: &seawall_model::durable::LeaseRow| {
        let each = row.holders.iter().map(|held| {
            format!(
                "{} has {} by token {} {}",
                held.agent.agent,
                held.units,
                held.token,
                when(held.until, start)
            )
        });
        each.collect::<Vec<_>>().join(", ")
    };
    let line = |row: &seawall_model::durable::LeaseRow| {
        let held = if row.holders.is_empty() { "nobody has any".to_owned() } else { holders(row) };
        format!("{} of {}: {held}", row.resource, row.of)
    };
    shard.leases.values().map(line).collect()
}

fn agent(agents: &Agents, row: &AgentRow, start: u64) -> Vec<String> {
    let run = row.run.map_or("no run".to_owned(), |run| run.to_string());
    let mut lines = vec![format!("{} {} {run}", row.address.agent, agents.state(row).as_str())];
    lines.extend(row.inbox.iter().map(|entry| format!("  will see {}", item(entry))));
    lines.extend(row.ties.iter().map(|tie| format!("  tied to {} {}", tie.peer.agent, tie.effect)));
    lines.extend(waits(agents, row, start).into_iter().map(|line| format!("  {line}")));
    lines
}

fn waits(agents: &Agents, row: &AgentRow, start: u64) -> Vec<String> {
    let each = agents.needs(row).into_iter().map(|need| {
        let on = if need.on.is_empty() { String::new() } else { format!(" on {}", need.on) };
        let until = need.until.map_or(String::new(), |until| format!(" {}", when(until, start)));
        format!("{} waits: {}{on}{until}", row.address.agent, need.cause)
    });
    each.collect()
}
