package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
)

const suiteModule = "github.com/matrix-org/complement"

var errUnavailable = errors.New("the suite is not available here")

// buildSuite gives the test binaries of all packages. The suite comes from the module cache,
// as go.mod and go.sum pin it; in a scratch copy its container package gives way to ours.
func buildSuite(work string) ([]string, error) {
	source, err := suiteFolder()
	if err != nil {
		return nil, err
	}
	copied := filepath.Join(work, "suite")
	binaries := filepath.Join(work, "bin")
	if err := errors.Join(os.RemoveAll(copied), os.RemoveAll(binaries), os.MkdirAll(binaries, 0o755)); err != nil {
		return nil, err
	}
	if err := copyTree(source, copied, "internal/docker"); err != nil {
		return nil, err
	}
	if err := copyTree("docker", filepath.Join(copied, "internal", "docker"), ""); err != nil {
		return nil, err
	}
	build := exec.Command("go", "test", "-c", "-o", binaries+"/", "./tests/...")
	build.Dir = copied
	build.Env = append(os.Environ(), "GOFLAGS=-mod=mod -buildvcs=false", "GOWORK=off")
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		return nil, fmt.Errorf("cannot build the suite: %w", err)
	}
	return filepath.Glob(filepath.Join(binaries, "*.test"))
}

// suiteFolder asks the go command for the pinned module.
func suiteFolder() (string, error) {
	output, err := exec.Command("go", "mod", "download", "-json", suiteModule).Output()
	var module struct{ Dir, Error string }
	if problem := json.Unmarshal(output, &module); problem != nil {
		return "", fmt.Errorf("%w: go mod download: %w", errUnavailable, errors.Join(err, problem))
	}
	if module.Dir == "" {
		return "", fmt.Errorf("%w: %s", errUnavailable, module.Error)
	}
	return module.Dir, nil
}

// copyTree copies the files of a folder, writable, without one of its subfolders.
func copyTree(source, target, without string) error {
	return filepath.WalkDir(source, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(source, path)
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if without != "" && relative == filepath.FromSlash(without) {
				return fs.SkipDir
			}
			return os.MkdirAll(filepath.Join(target, relative), 0o755)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(target, relative), text, 0o644)
	})
}
