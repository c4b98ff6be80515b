//! The index by itself: what is put in is found, and what happens to its folder.

use std::{fs, sync::Arc};

use roaring::RoaringBitmap;
use tempfile::TempDir;

use crate::{
    build::Stage,
    events::{Field, Order, Question, Terms},
    index::{FORMAT, Index, Op, Progress},
    pick::Hit,
    schema::EventDoc,
};

const MEMORY: usize = 15_000_000;

fn open(folder: &TempDir) -> (Index, Option<Progress>) {
    Index::open(&folder.path().join("search"), MEMORY).unwrap()
}

fn progress(position: u64) -> Progress {
    Progress { format: FORMAT, mark: "m".to_owned(), messages: true, position, stage: Stage::Done }
}

/// Event `num` of room `room`, said at the time `num`.
fn said(room: u64, num: u64, text: &str) -> Op {
    Op::Event(EventDoc {
        key: (room << 32) | num,
        recency: num,
        part: 0,
        kind: "m.room.message".to_owned(),
        sender: format!("@u{}:x.fr", num % 2),
        text: text.to_owned(),
    })
}

fn question(text: &str) -> Question {
    Question {
        terms: Terms::parse(text),
        fields: Vec::new(),
        rooms: Arc::new((1..=3).collect()),
        senders: None,
        kinds: None,
        order: Order::Recent,
        after: None,
        limit: 100,
    }
}

/// Rooms and numbers of the hits.
fn found(index: &Index, question: &Question) -> Vec<(u64, u64)> {
    let split = |hit: Hit| (hit.key >> 32, hit.key & 0xffff_ffff);
    question.ask(index).unwrap().into_iter().map(split).collect()
}

#[test]
fn words_phrases_rooms_senders_and_kinds_narrow() {
    let folder = tempfile::tempdir().unwrap();
    let (index, _) = open(&folder);
    let ops = vec![
        said(1, 1, "L'été à Nîmes"),
        said(1, 2, "Nîmes en été, l'automne"),
        said(2, 3, "un été ailleurs"),
        said(9, 4, "un été caché"),
    ];
    index.apply(ops).unwrap();
    assert_eq!(found(&index, &question("ete")), [], "nothing is found before the commit");
    index.commit(&progress(1)).unwrap();
    assert_eq!(found(&index, &question("ETE")), [(2, 3), (1, 2), (1, 1)]);
    assert_eq!(found(&index, &question("nimes ete")), [(1, 2), (1, 1)]);
    assert_eq!(found(&index, &question("\"ete a nimes\"")), [(1, 1)]);
    assert_eq!(found(&index, &question("absent")), []);
    let by = Question { senders: Some(vec!["@u1:x.fr".try_into().unwrap()]), ..question("été") };
    assert_eq!(found(&index, &by), [(2, 3), (1, 1)]);
    let topics = Question { fields: vec![Field::Topic], ..question("été") };
    assert_eq!(found(&index, &topics), []);
    let kinds = |kind: &str| Question { kinds: Some(vec![kind.to_owned()]), ..question("été") };
    assert_eq!(found(&index, &kinds("m.room.message")).len(), 3);
    assert_eq!(found(&index, &kinds("m.room.topic")), []);
    // So many rooms that they are looked up for each hit.
    let many: RoaringBitmap = (2..1_000).filter(|room| *room != 9).collect();
    assert_eq!(found(&index, &Question { rooms: Arc::new(many), ..question("été") }), [(2, 3)]);
}

#[test]
fn pages_follow_each_other_without_gap_or_overlap_in_both_orders() {
    let folder = tempfile::tempdir().unwrap();
    let (index, _) = open(&folder);
    // In several segments, with equal scores.
    for some in [1..20, 20..33, 33..50] {
        index.apply(some.map(|num| said(1 + num % 3, num, "mot")).collect()).unwrap();
        index.commit(&progress(1)).unwrap();
    }
    for order in [Order::Recent, Order::Rank] {
        let whole = Question { order, ..question("mot") }.ask(&index).unwrap();
        assert_eq!(whole.len(), 49);
        let (mut paged, mut after) = (Vec::new(), None);
        loop {
            let page = Question { order, after, limit: 7, ..question("mot") }.ask(&index).unwrap();
            let Some(last) = page.last() else { break };
            after = Some(*last);
            paged.extend(page);
        }
        assert_eq!(paged, whole, "{order:?}");
    }
}

#[test]
fn changes_done_again_change_nothing_and_what_is_redacted_goes() {
    let folder = tempfile::tempdir().unwrap();
    let (index, _) = open(&folder);
    for _ in 0..3 {
        index.apply(vec![said(1, 1, "un"), said(1, 2, "un deux")]).unwrap();
        index.commit(&progress(1)).unwrap();
    }
    assert_eq!(found(&index, &question("un")), [(1, 2), (1, 1)]);
    index.apply(vec![Op::NoEvent((1 << 32) | 2), said(1, 1, "trois")]).unwrap();
    index.commit(&progress(2)).unwrap();
    assert_eq!(found(&index, &question("un")), []);
    assert_eq!(found(&index, &question("trois")), [(1, 1)]);
}

#[test]
fn an_index_knows_how_far_it_came_and_forgets_what_was_not_committed() {
    let folder = tempfile::tempdir().unwrap();
    let (index, known) = open(&folder);
    assert_eq!(known, None);
    index.apply(vec![said(1, 1, "un")]).unwrap();
    index.commit(&progress(7)).unwrap();
    index.apply(vec![said(1, 2, "un")]).unwrap();
    drop(index);
    let (index, known) = open(&folder);
    assert_eq!(known, Some(progress(7)));
    assert_eq!(found(&index, &question("un")), [(1, 1)]);
}

#[test]
fn an_index_that_cannot_be_read_is_begun_anew() {
    for damage in ["meta.json", "fast", "idx"] {
        let folder = tempfile::tempdir().unwrap();
        let (index, _) = open(&folder);
        index.apply(vec![said(1, 1, "un")]).unwrap();
        index.commit(&progress(7)).unwrap();
        drop(index);
        let files = fs::read_dir(folder.path().join("search")).unwrap();
        let mut damaged = 0;
        for file in files.map(|file| file.unwrap().path()) {
            if file.to_string_lossy().ends_with(damage) {
                fs::write(file, "damaged").unwrap();
                damaged += 1;
            }
        }
        assert!(damaged > 0, "{damage}");
        let (index, known) = open(&folder);
        assert_eq!(known, None, "{damage}");
        assert_eq!(found(&index, &question("un")), []);
        index.apply(vec![said(1, 2, "un")]).unwrap();
        index.commit(&progress(8)).unwrap();
        assert_eq!(found(&index, &question("un")), [(1, 2)], "{damage}");
    }
}

#[test]
fn two_do_not_write_one_index() {
    let folder = tempfile::tempdir().unwrap();
    let (index, _) = open(&folder);
    index.commit(&progress(7)).unwrap();
    assert!(Index::open(&folder.path().join("search"), MEMORY).is_err());
    drop(index);
    assert_eq!(open(&folder).1, Some(progress(7)), "whoever came second took nothing away");
}
