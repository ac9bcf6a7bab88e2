"""Random lives of customers at the service, judged by a model of money that knows only the stand-in's log."""
