package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
)

// Verdicts, as expected.txt spells them.
const (
	pass = "pass"
	fail = "fail"
	skip = "skip"
)

// How often a test function may run until each of its tests has passed once. A test that is expected to pass
// and has a reason in expected.txt races with the server by itself.
const (
	usualAttempts  = 3
	racingAttempts = 12
)

type outcome struct {
	verdict string
	reason  string
}

// results maps "package TestName/subtest" to what came out.
type results map[string]outcome

func (r results) add(name string, found map[string]outcome) {
	for test, result := range found {
		r[name+" "+test] = result
	}
}

func (r results) count(verdict string) int {
	total := 0
	for _, result := range r {
		if result.verdict == verdict {
			total++
		}
	}
	return total
}

// addPasses takes over what passed in a later attempt: tests of one function may fail by chance in turn.
func (r results) addPasses(name string, found map[string]outcome) {
	for test, result := range found {
		if _, ran := r[name+" "+test]; !ran || result.verdict == pass {
			r[name+" "+test] = result
		}
	}
}

// unsettled names the test functions of a package that are to run for the so-manieth time:
// something that is expected to pass has not, or has not run though the whole package was to.
func (r results) unsettled(expected results, name string, whole bool, attempt int) []string {
	var functions []string
	for test, wanted := range expected {
		result, ran := r[test]
		if packageOf(test) != name || wanted.verdict != pass || result.verdict == pass || !(ran || whole) {
			continue
		}
		function := functionOf(test)
		if attempt <= usualAttempts || expected.races(function) {
			functions = append(functions, strings.TrimPrefix(function, name+" "))
		}
	}
	slices.Sort(functions)
	return slices.Compact(functions)
}

// races says whether a test of the function may fail for a server that is right.
func (r results) races(function string) bool {
	for test, result := range r {
		if result.verdict == pass && result.reason != "" && functionOf(test) == function {
			return true
		}
	}
	return false
}

func packageOf(test string) string {
	name, _, _ := strings.Cut(test, " ")
	return name
}

func functionOf(test string) string {
	function, _, _ := strings.Cut(test, "/")
	return function
}

var (
	verdictLine = regexp.MustCompile(`^\s*--- (PASS|FAIL|SKIP): (.+) \([0-9.]+s\)$`)
	frameLine   = regexp.MustCompile(`^=== (RUN|NAME|CONT|PAUSE)\s+(.*)$`)
	colours     = regexp.MustCompile("\x1b\\[[0-9;]*m")
	sourceLine  = regexp.MustCompile(`^\s*([a-z0-9_]+\.go:[0-9]+: .*)$`)
)

// parse reads the output of a test binary (-test.v=test2json).
func parse(output *bufio.Reader) map[string]outcome {
	found := map[string]outcome{}
	complaints := map[string]string{}
	current := ""
	for {
		line, err := output.ReadString('\n')
		text := strings.TrimLeft(strings.TrimRight(line, "\n"), "\x16")
		if match := frameLine.FindStringSubmatch(text); match != nil {
			current = match[2]
			if match[1] == "RUN" {
				found[current] = outcome{fail, "ended without a verdict"}
			}
		} else if match := verdictLine.FindStringSubmatch(text); match != nil {
			current = match[2]
			found[current] = outcome{verdict: strings.ToLower(match[1])}
		} else {
			noteComplaint(complaints, current, text)
		}
		if errors.Is(err, io.EOF) || err != nil {
			break
		}
	}
	for test, result := range found {
		if result.verdict != pass && result.reason == "" {
			found[test] = outcome{result.verdict, complaints[test]}
		}
	}
	return found
}

// noteComplaint keeps a test's first line in red, or failing that the last line it logged.
func noteComplaint(complaints map[string]string, test, line string) {
	match := sourceLine.FindStringSubmatch(colours.ReplaceAllString(line, ""))
	if match == nil || strings.HasPrefix(complaints[test], "!") {
		return
	}
	text := strings.Join(strings.Fields(match[1]), " ")
	if len(text) > 160 {
		text = strings.ToValidUTF8(text[:160], "") + "…"
	}
	if strings.Contains(line, "\x1b[31m") {
		text = "!" + text
	}
	complaints[test] = text
}

// readExpected reads lines of "verdict package test # reason"; a missing file is empty.
func readExpected(path string) (results, error) {
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return results{}, nil
	} else if err != nil {
		return nil, err
	}
	defer file.Close()
	expected := results{}
	lines := bufio.NewScanner(file)
	for number := 1; lines.Scan(); number++ {
		text, reason, _ := strings.Cut(lines.Text(), " # ")
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		verdict, test, ok := strings.Cut(text, " ")
		if !ok || !slices.Contains([]string{pass, fail, skip}, verdict) {
			return nil, fmt.Errorf("%s:%d: want \"pass|fail|skip package test # reason\"", path, number)
		}
		if verdict != pass && reason == "" {
			return nil, fmt.Errorf("%s:%d: a test that does not pass needs a reason", path, number)
		}
		expected[test] = outcome{verdict, reason}
	}
	return expected, lines.Err()
}

// writeExpected writes what was seen. A reason given by hand stays as long as the verdict does.
func writeExpected(path string, expected, seen results, whole bool) error {
	merged := results{}
	if !whole {
		for test, result := range expected {
			merged[test] = result
		}
	}
	for test, result := range seen {
		if old := expected[test]; old.verdict == result.verdict && old.reason != "" {
			result.reason = old.reason
		}
		result.reason = strings.TrimPrefix(result.reason, "!")
		if result.verdict != pass && result.reason == "" {
			result.reason = "a subtest does not pass"
		}
		merged[test] = result
	}
	var text strings.Builder
	fmt.Fprintf(&text, "# What Complement says of Chappe: %d pass, %d fail, %d skip.\n",
		merged.count(pass), merged.count(fail), merged.count(skip))
	text.WriteString("# verdict package test # reason. Written by complement-tests/run -update.\n")
	for _, test := range sortedKeys(merged) {
		result := merged[test]
		if result.reason == "" {
			fmt.Fprintf(&text, "%s %s\n", result.verdict, test)
		} else {
			fmt.Fprintf(&text, "%s %s # %s\n", result.verdict, test, result.reason)
		}
	}
	return os.WriteFile(path, []byte(text.String()), 0o644)
}

func sortedKeys(r results) []string {
	keys := make([]string, 0, len(r))
	for key := range r {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// report says how a run differs from what was expected.
type report struct {
	regressed, unlisted, missing, improved []string
}

func compare(expected, seen results, whole bool) report {
	var r report
	for _, test := range sortedKeys(seen) {
		before, listed := expected[test]
		now := seen[test]
		switch {
		case !listed:
			r.unlisted = append(r.unlisted, now.verdict+" "+test)
		case before.verdict == pass && now.verdict != pass:
			r.regressed = append(r.regressed, test+": "+strings.TrimPrefix(now.reason, "!"))
		case before.verdict != pass && now.verdict == pass:
			r.improved = append(r.improved, test)
		}
	}
	for _, test := range sortedKeys(expected) {
		if _, ran := seen[test]; whole && !ran && expected[test].verdict == pass {
			r.missing = append(r.missing, test)
		}
	}
	return r
}

// broken says whether the run must count as failed. Improvements do not break it.
func (r report) broken() bool {
	return len(r.regressed)+len(r.unlisted)+len(r.missing) > 0
}

func (r report) text() string {
	var text strings.Builder
	for _, group := range []struct {
		title string
		tests []string
	}{
		{"expected to pass, did not", r.regressed},
		{"not listed in expected.txt", r.unlisted},
		{"expected to pass, did not run", r.missing},
		{"passes now, run with -update", r.improved},
	} {
		for _, test := range group.tests {
			fmt.Fprintf(&text, "complement: %s: %s\n", group.title, test)
		}
	}
	return text.String()
}
