//! `POST …/logout`: the browser is logged out of the pages; the user's clients are not.

use axum::response::{IntoResponse, Response};

use crate::{login::Goal, page::onward, visitor::Posted};

pub(super) async fn handler(Posted { visitor, fields }: Posted) -> Response {
    let goal = match Goal::read(&fields) {
        Ok(goal) => goal,
        Err(error) => return visitor.problem(&error).into_response(),
    };
    let oauth = &visitor.oauth;
    let counted = oauth.count("oauth logout", &visitor.origin.subject(), oauth.config().rates.token);
    if let Err(error) = counted {
        return visitor.problem(&error).into_response();
    }
    if let Err(error) = oauth.close_browser(&visitor.cookie).await {
        return visitor.problem(&error).into_response();
    }
    onward(&goal.address(), Some(visitor.cookie_line("", Some(0))))
}
