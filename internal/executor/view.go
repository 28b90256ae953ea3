package executor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"

	"gradegate/internal/job"
)

// mount is one thing that the program sees.
type mount struct {
	Kind mountKind `json:"kind"`
	From string    `json:"from,omitempty"` // free of links
	To   string    `json:"to"`
	Size int64     `json:"size,omitempty"`
}

type mountKind string

const (
	readOnly  mountKind = "ro"
	readWrite mountKind = "rw"
	device    mountKind = "dev"
	link      mountKind = "link"
	memory    mountKind = "tmpfs"
	procFS    mountKind = "proc"
	devFS     mountKind = "devfs"
	emptyDir  mountKind = "dir"
)

// Where the program finds its things.
const (
	workPath   = "/work"
	dataPath   = "/data"
	outputPath = "/output"
	tokenPath  = "/run/token"
)

// systemDirs and etcFiles are all that is shown of the host: programs,
// libraries, and the few files that these read. No host names, no accounts.
var (
	systemDirs = []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"}
	etcFiles   = []string{
		"/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives", "/etc/localtime",
		"/etc/nsswitch.conf", "/etc/mime.types", "/etc/ssl/certs", "/etc/fonts",
	}
)

// furnish prepares the job's folder and describes the room: what is in it,
// what runs in it, and how much of everything it may use.
func furnish(p plan) (box, error) {
	f, root := folder(p.Spec.Dir), os.Geteuid() == 0
	p.Spec.Resources = bounded(p.Spec.Resources)
	b := box{Kind: p.Box, Root: root, Self: p.Self, Dir: workPath, Limits: rlimits(p.Spec.Resources)}
	if err := os.MkdirAll(f.output(), 0o700); err != nil {
		return b, err
	}
	if root {
		if err := hand(f); err != nil {
			return b, err
		}
	}
	places := map[string]string{workPath: workPath, dataPath: dataPath, outputPath: outputPath, tokenPath: tokenPath}
	if p.Box.Name == None {
		b.Dir = f.work()
		places = map[string]string{workPath: f.work(), dataPath: f.data(), outputPath: f.output(), tokenPath: f.token()}
	} else if err := b.furniture(p, f); err != nil {
		return b, err
	}
	var err error
	b.Env = environment(p, places)
	b.Argv, err = command(p, f, places[workPath])
	return b, err
}

// hand gives the program what is its own. Nothing of it runs yet, and a bundle
// has no links, so nothing can be swapped underneath.
func hand(f folder) error {
	own := func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, jobUID, jobUID)
	}
	if err := errors.Join(filepath.WalkDir(f.work(), own), filepath.WalkDir(f.output(), own)); err != nil {
		return err
	}
	if err := os.Lchown(f.token(), jobUID, jobUID); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	} else if err == nil {
		if err := os.Chmod(f.token(), 0o400); err != nil {
			return err
		}
	}
	info, err := os.Lstat(f.data())
	if err != nil || !info.IsDir() {
		return nil // none, or the competition's own folder behind a link: not ours to change
	}
	return filepath.WalkDir(f.data(), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Type()&fs.ModeSymlink != 0 {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		readable := info.Mode().Perm() | 0o444
		if d.IsDir() {
			readable |= 0o111
		}
		return os.Chmod(path, readable)
	})
}

// furniture lists the mounts, outer ones first.
func (b *box) furniture(p plan, f folder) error {
	for _, dir := range systemDirs {
		if target, err := os.Readlink(dir); err == nil {
			b.Mounts = append(b.Mounts, mount{Kind: link, From: target, To: dir})
			continue
		}
		b.show(dir, dir)
	}
	for _, path := range etcFiles {
		b.show(path, path)
	}
	if err := b.accounts(f); err != nil {
		return err
	}
	for _, path := range p.ReadOnly {
		b.show(path, path)
	}
	tmp := tmpBytes(p.Spec.Resources)
	b.Mounts = append(b.Mounts,
		mount{Kind: procFS, To: "/proc"}, mount{Kind: devFS, To: "/dev"},
		mount{Kind: memory, To: "/dev/shm", Size: tmp}, mount{Kind: memory, To: "/tmp", Size: tmp},
		mount{Kind: readWrite, From: real(f.work()), To: workPath},
		mount{Kind: readWrite, From: real(f.output()), To: outputPath})
	if !b.show(f.data(), dataPath) {
		b.Mounts = append(b.Mounts, mount{Kind: emptyDir, To: dataPath})
	}
	b.show(f.token(), tokenPath)
	if len(p.GPUs) > 0 {
		b.gpus(p.GPUs)
	}
	b.Mounts = withParents(b.Mounts)
	return nil
}

// withParents makes the folders between the root and a mount explicit. bwrap
// would make them as closed as what is mounted there is.
func withParents(list []mount) []mount {
	var all []mount
	there := map[string]bool{"/": true}
	for _, m := range list {
		var missing []mount
		for dir := filepath.Dir(m.To); !there[dir]; dir = filepath.Dir(dir) {
			there[dir] = true
			missing = append(missing, mount{Kind: emptyDir, To: dir})
		}
		slices.Reverse(missing)
		there[m.To] = true
		all = append(append(all, missing...), m)
	}
	return all
}

// show mounts a host path read-only, if it exists.
func (b *box) show(from, to string) bool {
	path, err := filepath.EvalSymlinks(from)
	if err == nil {
		b.Mounts = append(b.Mounts, mount{Kind: readOnly, From: path, To: to})
	}
	return err == nil
}

// accounts are those of a world in which only root and the job exist.
func (b *box) accounts(f folder) error {
	dir := f.path(viewName)
	err := errors.Join(os.MkdirAll(dir, 0o755),
		os.WriteFile(filepath.Join(dir, "passwd"), []byte("root:x:0:0:root:/:/bin/sh\njob:x:65534:65534:job:/work:/bin/sh\n"), 0o644),
		os.WriteFile(filepath.Join(dir, "group"), []byte("root:x:0:\njob:x:65534:\n"), 0o644),
		os.WriteFile(filepath.Join(dir, "hosts"), []byte("127.0.0.1 localhost job\n"), 0o644))
	if err != nil {
		return err
	}
	for _, name := range []string{"passwd", "group", "hosts"} {
		b.show(filepath.Join(dir, name), "/etc/"+name)
	}
	return nil
}

// gpus shows the driver's nodes: those that all jobs need, and its own. The
// driver's library also reads /sys.
func (b *box) gpus(ids []string) {
	nodes, err := filepath.Glob("/dev/nvidia*")
	if err != nil {
		return // the pattern is right
	}
	own := map[string]bool{}
	byNumber := true
	for _, id := range ids {
		own["/dev/nvidia"+id] = true
		byNumber = byNumber && id != "" && strings.Trim(id, "0123456789") == ""
	}
	for _, node := range nodes {
		numbered := strings.Trim(strings.TrimPrefix(node, "/dev/nvidia"), "0123456789") == ""
		if info, err := os.Stat(node); err != nil || info.IsDir() || byNumber && numbered && !own[node] {
			continue
		}
		b.Mounts = append(b.Mounts, mount{Kind: device, From: node, To: node})
	}
	b.show("/sys", "/sys")
}

func real(path string) string {
	if p, err := filepath.EvalSymlinks(path); err == nil {
		return p
	}
	return path
}

// tmpBytes is the size of /tmp and of /dev/shm. Both are memory.
func tmpBytes(r job.Resources) int64 { return min(max(r.MemoryBytes/2, 16<<20), 1<<30) }

// rlimits are the second line: the supervisor's own limits are the first.
func rlimits(r job.Resources) limits {
	return limits{
		FileBytes: uint64(max(r.OutputBytes, tmpBytes(r))),
		// Every process may use all CPUs for the whole time, and a little more, so
		// that it is the time limit that ends it.
		CPUSeconds: uint64(r.TimeLimit/time.Second+1)*uint64(r.CPUs) + 10,
	}
}

// environment is everything the program gets to know of the world. The last
// word is ours: a spec cannot redefine it.
func environment(p plan, places map[string]string) []string {
	env := map[string]string{}
	for k, v := range p.Spec.Env {
		if k != "" && !strings.ContainsAny(k, "=\x00") && !strings.Contains(v, "\x00") {
			env[k] = v
		}
	}
	ours := map[string]string{
		"PATH": p.Path, "HOME": places[workPath], "LANG": "C.UTF-8", "TMPDIR": "/tmp",
		"GRADEGATE_DATA": places[dataPath], "GRADEGATE_OUTPUT": places[outputPath], "GRADEGATE_JOB": string(p.Spec.ID),
		"GRADEGATE_RUN_TOKEN_FILE": places[tokenPath], "CUDA_VISIBLE_DEVICES": strings.Join(p.GPUs, ","),
	}
	list := make([]string, 0, len(env)+len(ours))
	for k, v := range ours {
		env[k] = v
	}
	for k, v := range env {
		list = append(list, k+"="+v)
	}
	sort.Strings(list)
	return list
}

// command decides how the entry point is run: by its own #! line, by its
// suffix, or directly.
func command(p plan, f folder, work string) ([]string, error) {
	root, err := os.OpenRoot(f.work())
	if err != nil {
		return nil, errors.New("the job has no work folder")
	}
	defer root.Close() // read only
	entry := filepath.Clean(p.Spec.Entry)
	info, err := root.Lstat(entry)
	if !filepath.IsLocal(entry) || err != nil {
		return nil, fmt.Errorf("the entry point %q is not in the submission", p.Spec.Entry)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("the entry point %q is no regular file", p.Spec.Entry)
	}
	head := make([]byte, 2)
	if file, err := root.Open(entry); err == nil {
		_, _ = file.Read(head) // too short a file has no #!
		_ = file.Close()       // read only
	}
	path, runnable := work+"/"+entry, info.Mode().Perm()&0o111 != 0
	var argv []string
	switch {
	case runnable && string(head) == "#!":
		argv = []string{path}
	case strings.HasSuffix(entry, ".sh"):
		argv = []string{"/bin/sh", path}
	case strings.HasSuffix(entry, ".py"):
		python, err := find("python3", p.Path)
		if err != nil {
			return nil, err
		}
		argv = []string{python, path}
	case runnable:
		argv = []string{path}
	default:
		return nil, fmt.Errorf("the entry point %q is neither executable nor a .py or .sh file", p.Spec.Entry)
	}
	return append(argv, p.Spec.Args...), nil
}

// find looks for an interpreter on the program's path.
func find(name, path string) (string, error) {
	for _, dir := range filepath.SplitList(path) {
		file := filepath.Join(dir, name)
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0 {
			return file, nil
		}
	}
	return "", fmt.Errorf("%s is not installed on this host (looked in %s)", name, path)
}
