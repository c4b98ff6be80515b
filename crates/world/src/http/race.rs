//! Which of a host's addresses is connected to: the families by turns, and the next one beside any that keeps silent (RFC 8305).

use std::{net::IpAddr, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};

/// How long an address has to itself before the next one is tried beside it.
const HEAD_START: Duration = Duration::from_millis(250);

/// The connection that stands first; otherwise the last failure, which is none where there are no addresses.
pub(super) async fn race<T, E, F>(addresses: &[IpAddr], connect: impl Fn(IpAddr) -> F) -> Result<T, Option<E>>
where
    F: Future<Output = Result<T, E>>,
{
    let mut waiting = by_turns(addresses).into_iter();
    let (mut under_way, mut last) = (FuturesUnordered::new(), None);
    loop {
        if let Some(address) = waiting.next() {
            under_way.push(connect(address));
        }
        let patience = if waiting.as_slice().is_empty() { Duration::MAX } else { HEAD_START };
        match tokio::time::timeout(patience, under_way.next()).await {
            Ok(Some(Ok(connection))) => return Ok(connection),
            Ok(Some(Err(error))) => last = Some(error),
            Ok(None) => return Err(last),
            Err(_silent) => {}
        }
    }
}

/// IPv6 and IPv4 by turns, beginning with the first one's.
fn by_turns(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let Some(first) = addresses.first() else { return Vec::new() };
    let (alike, others): (Vec<IpAddr>, Vec<IpAddr>) =
        addresses.iter().partition(|address| address.is_ipv6() == first.is_ipv6());
    let turns = 0..alike.len().max(others.len());
    turns.flat_map(|turn| [alike.get(turn), others.get(turn)]).flatten().copied().collect()
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    fn addresses(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_keeps_silent_stops_no_other() {
        let [six, four] = [&["2001:db8::1", "2001:db8::2"][..], &["192.0.2.1"]].map(addresses);
        let tried = Mutex::new(Vec::new());
        let connect = |address: IpAddr| {
            tried.lock().push(address);
            async move {
                let silent = std::future::pending::<Result<IpAddr, &str>>();
                if address.is_ipv6() { silent.await } else { Ok(address) }
            }
        };
        assert_eq!(race(&[&six[..], &four].concat(), connect).await, Ok(four[0]));
        assert_eq!(*tried.lock(), [six[0], four[0]], "the other family has the second turn");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_fails_gives_way_at_once_and_slow_ones_go_on() {
        let all = addresses(&["192.0.2.1", "192.0.2.2", "192.0.2.3"]);
        let begun = tokio::time::Instant::now();
        let slow = all[0];
        let connect = |address: IpAddr| async move {
            if address != slow {
                return Err("refused");
            }
            tokio::time::sleep(Duration::from_secs(3)).await;
            Ok(begun.elapsed().as_secs())
        };
        assert_eq!(race(&all, connect).await, Ok(3), "it was not begun anew");
        assert_eq!(race(&all[1..], connect).await, Err(Some("refused")));
        assert_eq!(race(&[], connect).await, Err(None));
    }

    #[test]
    fn families_take_turns() {
        let given = addresses(&["2001:db8::1", "2001:db8::2", "192.0.2.1", "2001:db8::3"]);
        assert_eq!(by_turns(&given), addresses(&["2001:db8::1", "192.0.2.1", "2001:db8::2", "2001:db8::3"]));
    }
}
