//! Events after those that they rest on.

use std::collections::BTreeSet;

/// Puts each of `keys` after those among them that it rests on, and leaves them in their order otherwise. In a circle, as ids
/// that are no hashes allow, one comes before what it rests on.
pub(super) fn ordered<K: Clone + Ord>(keys: Vec<K>, rests_on: impl Fn(&K) -> Vec<K>) -> Vec<K> {
    let among: BTreeSet<K> = keys.iter().cloned().collect();
    let (mut order, mut entered) = (Vec::with_capacity(among.len()), BTreeSet::new());
    let mut stack: Vec<(K, bool)> = keys.into_iter().rev().map(|key| (key, false)).collect();
    while let Some((key, ready)) = stack.pop() {
        if ready {
            order.push(key);
        } else if entered.insert(key.clone()) {
            let before = rests_on(&key);
            stack.push((key, true));
            stack.extend(before.into_iter().filter(|key| among.contains(key)).map(|key| (key, false)));
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::ordered;

    #[test]
    fn what_rests_on_others_comes_after_them() {
        let rests_on = |key: &u8| match key {
            1 => vec![3, 9],
            3 => vec![4],
            _ => vec![],
        };
        assert_eq!(ordered(vec![1, 2, 3, 4], rests_on), [4, 3, 1, 2]);
        assert_eq!(ordered(vec![2, 4, 3, 1], rests_on), [2, 4, 3, 1]);
    }

    #[test]
    fn a_circle_ends() {
        let mut order = ordered(vec![0, 1, 2], |key| vec![(key + 1) % 3]);
        order.sort_unstable();
        assert_eq!(order, [0, 1, 2]);
    }
}
