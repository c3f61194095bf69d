// Package web holds the built page. `make web` builds it into web/dist, which
// is not committed.
//
// If the compiler says that pattern all:dist matches no files: run `make web`
// first. The name of this file is there to say so in that very message.
package web

import (
	"embed"
	"io/fs"
)

//go:embed all:dist
var dist embed.FS

// Page returns the files of the page, index.html at the root.
func Page() fs.FS {
	page, err := fs.Sub(dist, "dist")
	if err != nil {
		panic("web: " + err.Error()) // only for a malformed path, and "dist" is none
	}
	return page
}
