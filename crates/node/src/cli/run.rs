//! `seawall run forget`: deletes what the store keeps of a run, also beside a running
//! server.

use seawall_model::Tenant;
use seawall_store::{Error, Store};
use serde_json::json;

use crate::config::Loaded;

use super::args::{RunCommand, RunForgetArgs};
use super::{check, code, print};

pub(crate) fn run(command: &RunCommand) -> i32 {
    match command {
        RunCommand::Forget(args) => forget(args),
    }
}

fn forget(args: &RunForgetArgs) -> i32 {
    let tenant = match Tenant::parse(&args.tenant) {
        Ok(tenant) => tenant,
        Err(error) => {
            print::failure(&format!("--tenant {:?}: {error}", args.tenant), "for example acme/search");
            return code::USAGE;
        }
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
            print::failure(&error.to_string(), "");
            return exit;
        }
    }
    code::OK
}
