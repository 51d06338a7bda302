//! Stops: what is stopped, stopping more, and letting it go on. A stop may be of what is not
//! there yet; whoever mistyped its name is told that nothing matches now.

use http::StatusCode;
use seawall_kernel::agents::Input;
use seawall_kernel::agents::gate::Pattern;
use seawall_model::durable::{Scope, Stop};
use seawall_model::{Code, Fault};
use serde_json::{Value, json};

use crate::agents::handler::{BUILTINS, rules_of, tool_of};

use super::show::ms;
use super::{Answer, Request};

/// `GET halts`
pub(super) fn list(request: &Request<'_>) -> Answer {
    request.who.only_admin()?;
    request.query.finish()?;
    let shown =
        |stop: &Stop| json!({"scope": stop.scope.to_string(), "by": &*stop.by, "since_ms": ms(stop.at)});
    let halts: Vec<Value> = request.runtime.desk.halts().iter().map(shown).collect();
    request.json(StatusCode::OK, &json!({ "halts": halts }))
}

/// `POST halts`
pub(super) async fn set(request: Request<'_>) -> Answer {
    request.who.only_admin()?;
    request.query.finish()?;
    let mut fields = request.fields()?;
    let scope = fields.text("scope")?.unwrap_or_default();
    let on = fields.flag("on")?.unwrap_or(true);
    fields.finish()?;
    let scope = Scope::parse(&scope).ok_or_else(|| {
        let message = "`scope` is all, tenant:PATH, type:NAME, agent:TENANT/TYPE/KEY, run:RUN or tool:NAME (perhaps with * at its end).";
        Fault::new(Code::BadField, message)
            .at("scope")
            .advise("`seawall halts` lists what is stopped; `seawall runs` and `seawall agents --list` have the names.")
    })?;
    if let Scope::Tool(name) = &scope
        && on
        && BUILTINS.contains(&&**name)
        && !is_reached(name)
    {
        let message = format!("`{name}` is a way to use the store, which no stop of its own reaches.");
        return Err(Fault::new(Code::BadField, message).at("scope").advise(
            "Stop `store.put` or `store.watch`, or forbid it by a rule: `[[agents.permissions]]` with `deny`.",
        ));
    }
    let was = request.runtime.desk.halts().iter().any(|stop| stop.scope == scope);
    let matches = matches(&request, &scope).await?;
    let (by, told) = (request.who.by.clone(), scope.clone());
    request.tell(|ticket| Input::Halt { ticket, scope: told, on, by }).await?;
    tracing::warn!(%scope, on, matches, by = %request.who.by, "the kill switch of agents");
    let body = json!({"scope": scope.to_string(), "on": on, "was": was, "matches": matches});
    request.json(StatusCode::OK, &body)
}

/// Does a stop of this built-in tool reach it? Not where its work is known by another's name.
fn is_reached(tool: &str) -> bool {
    rules_of(tool, "").iter().any(|(kind, _)| *kind == "tool" || tool_of(kind, "") == tool)
}

/// Is there anything now that this stops?
async fn matches(request: &Request<'_>, scope: &Scope) -> Result<bool, Fault> {
    match scope {
        Scope::All => Ok(true),
        Scope::Tool(name) => {
            let fits = Pattern::new(name);
            let known = request.app.tools.known();
            let built_in = BUILTINS.iter().any(|tool| fits.fits(tool) && is_reached(tool));
            Ok(built_in || known.iter().any(|card| fits.fits(&card.name)))
        }
        Scope::Type(kind) => {
            if request.runtime.library.of(kind).is_some() {
                return Ok(true);
            }
            // Agents of a type that is not defined any more may still work.
            let kind = kind.clone();
            request.read(move |reader| Ok(reader.standings(None)?.iter().any(|(of, ..)| **of == *kind))).await
        }
        Scope::Tenant(path) => {
            let path = path.clone();
            request.read(move |reader| Ok(!reader.agents(Some(&path), None, 1)?.is_empty())).await
        }
        Scope::Agent(address) => {
            let address = address.clone();
            request.read(move |reader| Ok(reader.agent(&address)?.is_some())).await
        }
        Scope::Tree(run) => {
            let run = *run;
            request.read(move |reader| Ok(reader.run(run)?.is_some_and(|row| !row.state.over()))).await
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use seawall_model::effect::Work;
    use seawall_model::{At, Payload};

    use super::*;

    #[test]
    fn stops_reach_the_built_in_tools_by_the_names_that_the_kernel_knows() {
        assert!(is_reached("store.search") && is_reached("store.put") && is_reached("human.ask"));
        assert!(!is_reached("notes.add") && !is_reached("callback.wait"));
        let key: Arc<str> = "k".into();
        let works = [
            Work::Get { key: key.clone() },
            Work::Watch { key: key.clone(), version: 0 },
            Work::Timer { at: At(1) },
            Work::Promise { question: Payload::empty() },
            Work::Publish { topic: key.clone(), body: Payload::empty() },
            Work::Subscribe { topic: key.clone(), on: true },
            Work::Release { resource: key, token: 1 },
        ];
        for work in works {
            let tool = work.tool().expect("a tool's work");
            assert!(BUILTINS.contains(&tool) && is_reached(tool), "{tool}");
            assert_eq!(tool_of(work.kind(), ""), tool);
        }
    }
}
