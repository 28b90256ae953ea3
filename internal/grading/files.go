package grading

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"gradegate/internal/fault"
	"gradegate/internal/job"
	"gradegate/internal/token"
)

// files is the folders that grading owns:
//
//	bundles/<sha256>                     uploads, named by their content
//	competitions/<name>/<sha256>/public/ what programs and people may read
//	competitions/<name>/<sha256>/hidden/ what only the scorer reads
//	jobs/<id>/                           one job; see job.Spec
type files struct {
	dir     string
	bundles *bundles
}

func openFiles(dir string) (files, error) {
	for _, d := range []string{"competitions", "jobs"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return files{}, fmt.Errorf("grading folders: %w", err)
		}
	}
	b, err := openBundles(filepath.Join(dir, "bundles"))
	return files{dir: dir, bundles: b}, err
}

// jobDir is the folder of a job. Ids are ours, but a folder name is never
// built from anything that could climb.
func (f files) jobDir(id job.ID) string {
	return filepath.Join(f.dir, "jobs", filepath.Base(string(id)))
}

// drop removes the folder of a refused submission: it takes up no room.
func (f files) drop(id job.ID) { _ = os.RemoveAll(f.jobDir(id)) }

func (f files) competitionDir(name, digest string) string {
	return filepath.Join(f.dir, "competitions", filepath.Base(name), filepath.Base(digest))
}

func noSpace(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return fault.Wrap(fault.Invalid, "upload_cut", "The upload ended too early.", err).WithFix("Send it again.")
	}
	return fault.Wrap(fault.Unavailable, "storage_unavailable", "The upload could not be stored.", err).
		WithFix("Try again later; if it lasts, tell the operator.")
}

// makeJob creates the folders of a job; only work/ and output/ are the
// program's to write.
func (f files) makeJob(id job.ID) (work *os.Root, err error) {
	dir := f.jobDir(id)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, noSpace(err)
	}
	for _, d := range []string{"work", "data", "output"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			return nil, noSpace(err)
		}
	}
	work, err = os.OpenRoot(filepath.Join(dir, "work"))
	if err != nil {
		return nil, noSpace(err)
	}
	return work, nil
}

// giveData copies the public files of a competition into the job's data
// folder: a copy, because the program must not be able to touch the original.
func (f files) giveData(id job.ID, c Competition) error {
	public := filepath.Join(f.competitionDir(c.Name, c.Files), "public")
	if err := os.CopyFS(filepath.Join(f.jobDir(id), "data", "."), os.DirFS(public)); err != nil {
		return noSpace(err)
	}
	return nil
}

func (f files) writeRunToken(id job.ID, s token.Secret) error {
	path := filepath.Join(f.jobDir(id), "run_token")
	_ = os.Remove(path) // of an earlier draw
	if err := os.WriteFile(path, []byte(s.Reveal()+"\n"), 0o400); err != nil {
		return noSpace(err)
	}
	return nil
}

func (f files) log(id job.ID) string { return filepath.Join(f.jobDir(id), "log") }

// spec is what the executor needs to know.
func (f files) spec(j job.Job, sub Submission) job.Spec {
	return job.Spec{ID: j.ID, Dir: f.jobDir(j.ID), Entry: sub.Entry, Args: j.Args, Resources: j.Resources}
}

// outputLimit bounds a predictions file that a program left behind.
const outputLimit = 64 << 20

// openOutput opens a regular file that the program left in its output folder.
// The program was hostile: links are not followed, and a pipe would block.
func (f files) openOutput(id job.ID, name string) (*os.File, error) {
	root, err := os.OpenRoot(filepath.Join(f.jobDir(id), "output"))
	if err != nil {
		return nil, fmt.Errorf("output of %s: %w", id, err)
	}
	defer func() { _ = root.Close() }()
	missing := fault.New(fault.Invalid, "predictions_missing", "The program left no %s in $GRADEGATE_OUTPUT.", name).
		WithFix("Write id,label rows to \"$GRADEGATE_OUTPUT/%s\".", name)
	info, err := root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, missing
	}
	if err != nil || !info.Mode().IsRegular() {
		return nil, fault.Wrap(fault.Invalid, "predictions_not_a_file", "The output is not a regular file.", err)
	}
	if info.Size() > outputLimit {
		return nil, fault.New(fault.Invalid, "predictions_too_large", "The predictions file is larger than %d MiB.", int64(outputLimit)>>20)
	}
	file, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, missing.Caused(err)
	}
	return file, nil
}

// tidy removes what a finished job does not need any more; its log and its
// predictions stay. A program may have filled everything else.
func (f files) tidy(id job.ID) {
	dir := f.jobDir(id)
	for _, d := range []string{"work", "data", "run_token"} {
		_ = os.RemoveAll(filepath.Join(dir, d))
	}
	left, _ := os.ReadDir(filepath.Join(dir, "output")) // none: nothing to remove
	for _, e := range left {
		if e.Name() != predictionsFile || !e.Type().IsRegular() {
			_ = os.RemoveAll(filepath.Join(dir, "output", e.Name()))
		}
	}
}

// untidied are the jobs whose folder is as it was when they ran.
func (f files) untidied() (ids []job.ID, err error) {
	list, err := os.ReadDir(filepath.Join(f.dir, "jobs"))
	if err != nil {
		return nil, fmt.Errorf("folders of jobs: %w", err)
	}
	for _, e := range list {
		if _, err := os.Lstat(filepath.Join(f.jobDir(job.ID(e.Name())), "work")); err == nil {
			ids = append(ids, job.ID(e.Name()))
		}
	}
	return ids, nil
}
