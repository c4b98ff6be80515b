// Command complement-tests runs the conformance suite Complement against plain Chappe processes.
//
// Every package of the suite runs in a network namespace of its own. The results are compared with expected.txt.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// exitUnavailable tells the caller that the suite could not be had, so nothing was tested.
const exitUnavailable = 3

type options struct {
	run      string
	packages string
	jobs     int
	update   bool
	launcher string
	work     string
	expected string
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == insideArgument {
		os.Exit(inside(os.Args[2:]))
	}
	var o options
	flag.StringVar(&o.run, "run", "", "only the tests that match, as in go test -run")
	flag.StringVar(&o.packages, "packages", "", "only these packages of the suite, comma separated (tests,csapi,msc3902…)")
	flag.IntVar(&o.jobs, "jobs", 2, "how many packages run at the same time")
	flag.BoolVar(&o.update, "update", false, "write what was seen to expected.txt")
	flag.StringVar(&o.launcher, "launcher", "chappe.sh", "program that becomes the homeserver")
	flag.StringVar(&o.work, "work", cacheFolder(), "where the suite is built and logs are kept")
	flag.StringVar(&o.expected, "expected", "expected.txt", "the results that are expected")
	flag.Parse()
	code, err := conduct(o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "complement:", err)
	}
	os.Exit(code)
}

func cacheFolder() string {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	return filepath.Join(cache, "chappe", "complement")
}

// conduct builds the suite, runs it, compares, and gives the exit code.
func conduct(o options) (int, error) {
	began := time.Now()
	launcher, err := filepath.Abs(o.launcher)
	if err != nil {
		return 1, err
	}
	binaries, err := buildSuite(o.work)
	if errors.Is(err, errUnavailable) {
		return exitUnavailable, err
	} else if err != nil {
		return 1, err
	}
	fmt.Printf("complement: suite built in %s\n", time.Since(began).Round(time.Second))
	logs := filepath.Join(o.work, "logs")
	if err := errors.Join(os.RemoveAll(logs), os.MkdirAll(logs, 0o755)); err != nil {
		return 1, err
	}
	session := session{launcher: launcher, logs: logs}
	chosen := choose(binaries, o.packages)
	seen, problems := session.runAll(chosen, o.run, o.jobs)
	expected, err := readExpected(o.expected)
	if err != nil {
		return 1, err
	}
	if o.update && problems != nil {
		return 1, problems
	}
	if !o.update {
		session.retry(chosen, o.run == "", expected, seen)
	}
	whole := o.run == "" && o.packages == ""
	report := compare(expected, seen, whole)
	if o.update {
		return 0, writeExpected(o.expected, expected, seen, whole)
	}
	fmt.Print(report.text())
	fmt.Printf("complement: took %s, logs in %s\n", time.Since(began).Round(time.Second), logs)
	fmt.Printf("%d passed, %d failed, %d skipped\n", seen.count(pass), seen.count(fail), seen.count(skip))
	if report.broken() {
		return 1, problems
	}
	return 0, nil
}

// choose keeps the named packages, or all of them; the long ones come first.
func choose(binaries []string, names string) []string {
	var first, others []string
	for _, binary := range binaries {
		name := packageName(binary)
		wanted := names == "" || strings.Contains(","+names+",", ","+name+",")
		switch {
		case !wanted:
		case name == "csapi" || name == "tests" || name == "msc3902":
			first = append(first, binary)
		default:
			others = append(others, binary)
		}
	}
	return append(first, others...)
}

func packageName(binary string) string {
	return strings.TrimSuffix(filepath.Base(binary), ".test")
}

type session struct {
	launcher string
	logs     string
}

// runAll runs the packages, a few at a time, and gathers their results.
func (s session) runAll(binaries []string, pattern string, jobs int) (results, error) {
	seen := results{}
	var problems []error
	var mutex sync.Mutex
	var workers sync.WaitGroup
	queue := make(chan string)
	for range max(jobs, 1) {
		workers.Go(func() {
			for binary := range queue {
				began := time.Now()
				found, err := s.runPackage(binary, pattern)
				mutex.Lock()
				seen.add(packageName(binary), found)
				if err != nil {
					problems = append(problems, fmt.Errorf("%s: %w", packageName(binary), err))
				}
				fmt.Printf("complement: %-8s %4d results in %s\n", packageName(binary), len(found), time.Since(began).Round(time.Second))
				mutex.Unlock()
			}
		})
	}
	for _, binary := range binaries {
		queue <- binary
	}
	close(queue)
	workers.Wait()
	return seen, errors.Join(problems...)
}

// retry runs functions again in which something should have passed and did not, alone: a busy machine is
// not a broken server. Each is named, so that what passes only then is seen.
func (s session) retry(binaries []string, whole bool, expected, seen results) {
	for attempt := 2; attempt <= racingAttempts; attempt++ {
		for _, binary := range binaries {
			name := packageName(binary)
			again := seen.unsettled(expected, name, whole, attempt)
			if len(again) == 0 {
				continue
			}
			fmt.Printf("complement: %s once more (%d): %s\n", name, attempt, strings.Join(again, " "))
			found, err := s.runPackage(binary, "^("+strings.Join(again, "|")+")$")
			if err != nil {
				fmt.Printf("complement: %s: %s\n", name, err)
				continue
			}
			seen.addPasses(name, found)
		}
	}
}
