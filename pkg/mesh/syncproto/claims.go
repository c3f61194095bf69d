package syncproto

// needsClaims reports whether v has news for the other side that was not claimed yet.
func (l *link) needsClaims(v Vector) bool {
	for site, version := range v {
		if site != l.remote && version > l.known[site] && version > l.lastClaims[site] {
			return true
		}
	}
	return false
}

// claim puts claims and deps on the last message of a walk, making one where claims are all there is to say.
//
// Claims are the vector of the time at which the read was issued: what has been applied since may not be in the snapshot. Our
// own entry is that of the snapshot, all of which is sent. So each row in the snapshot of an entry that the claims
// cover was sent on this link before, is covered by the other side, or is named in the deps.
func (c *Core) claim(l *link, parts []outgoing, read *reading, own int64) []outgoing {
	claims := read.claims.With(c.cfg.Site, own)
	if !l.owed && !l.needsClaims(l.claimsIfDue(claims, c.now)) {
		l.served = true
		return parts
	}
	deps, news := l.deps(), Vector{}
	for site, version := range claims {
		if version > l.lastClaims[site] && !l.known.Covers(site, version) {
			news[site] = version
		}
	}
	size := vectorSize(news) + vectorSize(deps)
	if n := len(parts); n == 0 || parts[n-1].size+size > l.maxMessage-headerSize {
		parts = append(parts, outgoing{m: &Changes{}})
	}
	last := &parts[len(parts)-1]
	last.m.Claims, last.m.Deps = news, deps
	last.m.Reached = l.reached(l.cursor.whole())
	last.m.Remaining = 0
	last.size = sizeOf(last.m)
	l.lastClaims, l.claimsGen, l.claimsAt = claims, read.gen, 0
	l.owed, l.served = false, true
	return parts
}

// claimsIfDue returns what has to be news to the other side for claims without entries: anything in claims on the first
// walk, then what it should have got from elsewhere by now.
func (l *link) claimsIfDue(claims Vector, now int64) Vector {
	if !l.served {
		return claims
	}
	if l.claimsAt != 0 && now >= l.claimsAt {
		return l.claimsMark
	}
	return nil
}

// deps returns for each origin of a held entry its highest version.
func (l *link) deps() Vector {
	deps := Vector{}
	for _, h := range l.held {
		deps[h.origin] = max(deps[h.origin], h.version)
	}
	return deps
}

// reached returns the last local version at or below walked with nothing held at or below it.
func (l *link) reached(walked int64) int64 {
	walked = min(walked, l.cursor.whole())
	if len(l.held) > 0 {
		walked = min(walked, l.held[0].l-1)
	}
	return max(walked, 0)
}
