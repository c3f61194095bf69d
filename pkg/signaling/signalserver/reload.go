package signalserver

// Reload puts cfg in the place of the configuration, while the server runs; it does not block for clients. The error
// lists all that is wrong with cfg, and nothing has changed then. Page, Logger and Cluster stay those of New.
//
// Rates, limits, tokens, origins, proxies and TURN hold from here on, for connections that are open as for new ones, with
// these exceptions: JoinTimeout is for new connections; an open one goes by a new IdleTimeout after its
// next ping; who is in the grace time keeps the end that it had. Nothing that is above a new limit is closed, and no
// membership ends because its token is withdrawn: limits and tokens say who may come.
func (s *Server) Reload(cfg Config) error {
	if err := cfg.Check(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.cfg.Load()
	cfg.Page, cfg.Logger, cfg.Cluster = old.Page, old.Logger, old.Cluster
	s.cfg.Store(&cfg)
	s.admission = newAdmission(&cfg)
	s.joins.rate, s.joins.burst = cfg.JoinRate, cfg.JoinBurst
	s.sockets.setRates(&cfg)
	for _, room := range s.rooms {
		room.SetLimits(cfg.MaxMembers, cfg.Grace)
	}
	return nil
}
