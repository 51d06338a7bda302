//! The list of models, in the shape of whoever asks.

use http::{HeaderMap, Response, StatusCode};
use seawall_model::Fault;

use crate::app::App;

use crate::config::plan::ModelRoute;
use crate::keys::Caller;

use super::reply::{self, Reply};
use super::{agent_model, ask};

/// Whose models are that no engine has.
const OWNER: &str = "seawall";

/// `GET /v1/models`, with what this caller may use, and `GET /v1/models/NAME`.
///
/// # Errors
/// `ModelUnknown` for a name that does not exist, `ModelForbidden` for one that is not the
/// caller's.
pub fn models(
    app: &App,
    caller: &Caller,
    headers: &HeaderMap,
    name: Option<&str>,
) -> Result<Response<Reply>, Fault> {
    let live = app.live.load();
    let created = live.since.0 / 1_000_000;
    let anthropic = headers.contains_key("anthropic-version");
    let may_use = |model: &ModelRoute| ask::may_use(&live, caller, &caller.tenant, model);
    let owner = |model: &ModelRoute| {
        model.targets.first().map_or_else(|| OWNER.into(), |target| live.engine_name(target.engine))
    };
    let body = match name {
        Some(name) if agent_model::is_one(&live, name) => {
            agent_model::check(app, &live, caller, name)?;
            match anthropic {
                true => seawall_wire::models::model_anthropic(name, created),
                false => seawall_wire::models::model(name, created, OWNER),
            }
        }
        Some(name) => {
            let model = ask::resolve(&live, name)?;
            ask::allowed(&live, caller, &caller.tenant, &model)?;
            match anthropic {
                true => seawall_wire::models::model_anthropic(&model.name, created),
                false => seawall_wire::models::model(&model.name, created, &owner(&model)),
            }
        }
        None => {
            let listed = live.routes.listed().filter(|model| may_use(model));
            let mut owners: Vec<_> = listed.map(|model| (model.name.clone(), owner(model))).collect();
            let agents = agent_model::listed(app, &live, caller);
            owners.extend(agents.into_iter().map(|name| (name, OWNER.into())));
            let list: Vec<_> = owners.iter().map(|(name, owner)| (&**name, created, &**owner)).collect();
            match anthropic {
                true => seawall_wire::models::models_anthropic(&list),
                false => seawall_wire::models::models(&list),
            }
        }
    };
    Ok(reply::json(StatusCode::OK, body))
}
