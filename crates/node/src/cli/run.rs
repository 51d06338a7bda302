//! `seawall run stop | resume | forget`: stops runs of agents on a running server and lets
//! them go on, and deletes what the store keeps of them. Other orders are those of durable
//! runs alone.

use http::Method;
use seawall_model::{RunKey, Tenant};
use seawall_store::{Error, Store};
use serde_json::json;

use crate::config::Loaded;
use crate::gateway::ask::run_id;

use super::args::{RunCommand, RunForgetArgs, RunHaltArgs};
use super::server::{Failed, Server, failed, with_query};
use super::{agents, check, code, print};

pub(crate) fn run(command: &RunCommand) -> i32 {
    match command {
        RunCommand::Stop(args) => halt(args, "stop"),
        RunCommand::Resume(args) => halt(args, "resume"),
        RunCommand::Cancel(args) => agents::orders::cancel(args),
        RunCommand::Again(args) => agents::orders::again(args),
        RunCommand::Fork(args) => agents::orders::fork(args),
        RunCommand::Forget(args) => forget(args),
    }
}

/// The tenant as given.
fn tenant(path: &str) -> Result<Tenant, Failed> {
    Tenant::parse(path).map_err(|error| {
        failed(code::USAGE, format!("--tenant {path:?}: {error}"), "for example acme/search")
    })
}

fn halt(args: &RunHaltArgs, order: &str) -> i32 {
    let tenant = match tenant(&args.tenant) {
        Ok(tenant) => tenant,
        Err(failed) => return failed.tell(args.json),
    };
    // A durable run goes by its own name, one of the door by a digest of its.
    let run = match RunKey::parse(&args.name) {
        Some(durable) => durable.to_string(),
        None => format!("{:016x}", run_id(&tenant, &args.name).0),
    };
    let path = format!("/seawall/runs/{run}/{order}");
    let asked = Server::at(&args.server).and_then(|server| {
        let body = server.ask(Method::POST, &path, None)?;
        let known =
            RunKey::parse(&args.name).is_some() || args.json.json || is_known(&server, &tenant, &args.name);
        Ok((body, known))
    });
    match asked {
        Ok((body, _)) if args.json.json => print::json(&body),
        Ok((_, known)) if order == "stop" => {
            print::line(&format!("The run {:?} of {tenant} and all below it are stopped.", args.name));
            if !known {
                // A run of the door may come at any time: it is stopped before it has begun.
                print::line("No call of such a run is over yet: see `seawall runs` for those there are.");
            }
        }
        Ok(_) => print::line(&format!("The run {:?} of {tenant} goes on.", args.name)),
        Err(failed) => return failed.tell(args.json),
    }
    code::OK
}

/// Was anything of a run of the door by this name seen?
fn is_known(server: &Server, tenant: &Tenant, name: &str) -> bool {
    let query = [("tenant", Some(tenant.as_str())), ("tree", Some(name))];
    let found = server.get(&with_query("/seawall/runs", &query));
    found.is_ok_and(|found| found["runs"].as_array().is_some_and(|runs| !runs.is_empty()))
}

fn forget(args: &RunForgetArgs) -> i32 {
    let tenant = match tenant(&args.tenant) {
        Ok(tenant) => tenant,
        Err(failed) => return failed.tell(args.json),
    };
    let flags = args.config.flags();
    let loaded = match Loaded::read(&flags) {
        Ok(loaded) => loaded,
        Err(problems) => {
            check::report(&flags, &problems);
            return code::USAGE;
        }
    };
    let forgotten = Store::open_beside(&loaded.config.data)
        .and_then(|mut store| Ok((store.forget_run(&tenant, &args.name)?, store.close()?).0));
    match forgotten {
        Ok(answers) if args.json.json => print::json(&json!({ "answers": answers })),
        Ok(0) => print::line(&format!("Nothing is kept of the run {:?} of {tenant}.", args.name)),
        Ok(answers) => {
            print::line(&format!("{answers} answers of the run {:?} of {tenant} deleted.", args.name));
        }
        Err(error) => {
            let exit = match error {
                Error::NotOpen { .. } | Error::Newer { .. } => code::CANT_CREATE,
                Error::InUse { .. } | Error::Busy => code::UNAVAILABLE,
                _ => code::IO,
            };
            return failed(exit, error.to_string(), "").tell(args.json);
        }
    }
    code::OK
}
