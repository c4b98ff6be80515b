package main

import (
	"bufio"
	"strings"
	"testing"
)

func TestParseGivesEveryTestAVerdictAndFailuresAReason(t *testing.T) {
	output := strings.Join([]string{
		"\x16=== RUN   TestA",
		"\x16=== RUN   TestA/good",
		"    a_test.go:10: just saying",
		"\x16=== RUN   TestA/bad",
		"    a_test.go:11: before",
		"    a_test.go:12: \x1b[31mwanted 200 got 404\x1b[39m",
		"    a_test.go:13: after",
		"\x16--- FAIL: TestA (1.00s)",
		"\x16    --- PASS: TestA/good (0.50s)",
		"\x16    --- FAIL: TestA/bad (0.50s)",
		"\x16=== RUN   TestB",
		"    b_test.go:5: not for us",
		"\x16--- SKIP: TestB (0.00s)",
		"\x16=== RUN   TestC",
		"panic: out of luck",
	}, "\n")
	found := parse(bufio.NewReader(strings.NewReader(output)))
	for test, want := range map[string]outcome{
		"TestA":      {fail, ""},
		"TestA/good": {pass, ""},
		"TestA/bad":  {fail, "!a_test.go:12: wanted 200 got 404"},
		"TestB":      {skip, "b_test.go:5: not for us"},
		"TestC":      {fail, "ended without a verdict"},
	} {
		if found[test] != want {
			t.Errorf("%s: want %v, got %v", test, want, found[test])
		}
	}
	if len(found) != 5 {
		t.Errorf("want 5 results, got %v", found)
	}
}

func TestCompareFailsForRegressionsUnlistedAndMissing(t *testing.T) {
	expected := results{
		"p TestA": {verdict: pass}, "p TestB": {verdict: fail, reason: "later"}, "p TestC": {verdict: pass},
	}
	for _, example := range []struct {
		name   string
		seen   results
		whole  bool
		broken bool
	}{
		{"as expected", results{"p TestA": {verdict: pass}, "p TestB": {verdict: fail}, "p TestC": {verdict: pass}}, true, false},
		{"improved", results{"p TestA": {verdict: pass}, "p TestB": {verdict: pass}, "p TestC": {verdict: pass}}, true, false},
		{"regressed", results{"p TestA": {verdict: fail}}, false, true},
		{"skipped instead", results{"p TestA": {verdict: skip}}, false, true},
		{"unlisted", results{"p TestA": {verdict: pass}, "p TestD": {verdict: pass}}, false, true},
		{"missing", results{"p TestA": {verdict: pass}}, true, true},
		{"only a part was run", results{"p TestA": {verdict: pass}}, false, false},
	} {
		if got := compare(expected, example.seen, example.whole).broken(); got != example.broken {
			t.Errorf("%s: broken is %t", example.name, got)
		}
	}
}

func TestExpectedIsReadAsItIsWritten(t *testing.T) {
	path := t.TempDir() + "/expected.txt"
	seen := results{"p TestA/x_#01": {verdict: pass}, "p TestB": {verdict: fail, reason: "!b.go:1: why # not"}}
	if err := writeExpected(path, results{}, seen, true); err != nil {
		t.Fatal(err)
	}
	read, err := readExpected(path)
	if err != nil {
		t.Fatal(err)
	}
	if read["p TestA/x_#01"].verdict != pass || read["p TestB"] != (outcome{fail, "b.go:1: why # not"}) || len(read) != 2 {
		t.Errorf("read %v", read)
	}
	kept := results{"p TestB": {verdict: fail, reason: "said by hand"}}
	if err := writeExpected(path, kept, results{"p TestB": {verdict: fail, reason: "b.go:1: other"}}, false); err != nil {
		t.Fatal(err)
	}
	if read, _ = readExpected(path); read["p TestB"].reason != "said by hand" {
		t.Errorf("the reason became %q", read["p TestB"].reason)
	}
}
