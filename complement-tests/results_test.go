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
	kept := results{"p TestB": {verdict: fail, reason: "said by hand"}, "p TestC": {verdict: pass, reason: "races"}}
	seen = results{"p TestB": {verdict: fail, reason: "b.go:1: other"}, "p TestC": {verdict: pass}}
	if err := writeExpected(path, kept, seen, false); err != nil {
		t.Fatal(err)
	}
	read, _ = readExpected(path)
	if read["p TestB"].reason != "said by hand" || read["p TestC"] != (outcome{pass, "races"}) {
		t.Errorf("the reasons became %v", read)
	}
}

func TestWhatRacesHasMoreAttempts(t *testing.T) {
	expected := results{
		"p TestA": {verdict: pass}, "p TestA/one": {verdict: pass, reason: "races"}, "p TestA/two": {verdict: pass},
		"p TestB": {verdict: pass}, "p TestC": {verdict: fail, reason: "later"}, "q TestD": {verdict: pass},
		"p TestE": {verdict: pass},
	}
	seen := results{
		"p TestA": {verdict: fail}, "p TestA/one": {verdict: fail}, "p TestA/two": {verdict: pass},
		"p TestB": {verdict: fail}, "p TestC": {verdict: fail}, "q TestD": {verdict: fail},
	}
	for attempt, want := range map[int]string{2: "TestA TestB", usualAttempts: "TestA TestB", usualAttempts + 1: "TestA", racingAttempts: "TestA"} {
		if got := strings.Join(seen.unsettled(expected, "p", false, attempt), " "); got != want {
			t.Errorf("attempt %d: want %s, got %s", attempt, want, got)
		}
	}
	if got := strings.Join(seen.unsettled(expected, "p", true, 2), " "); got != "TestA TestB TestE" {
		t.Errorf("what did not run is to run, got %s", got)
	}
	seen.addPasses("p", map[string]outcome{"TestA": {verdict: fail}, "TestA/one": {verdict: pass}, "TestA/two": {verdict: fail}})
	if seen["p TestA"].verdict != fail || seen["p TestA/one"].verdict != pass || seen["p TestA/two"].verdict != pass {
		t.Errorf("became %v", seen)
	}
}
