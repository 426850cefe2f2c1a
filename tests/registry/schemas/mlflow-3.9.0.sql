-- Written by MLflow 3.9.0; the tables that the reader reads.
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('d3e4f5a6b7c8');
CREATE TABLE "latest_metrics" (
	"key" VARCHAR(250) NOT NULL, 
	value FLOAT NOT NULL, 
	timestamp BIGINT, 
	step BIGINT NOT NULL, 
	is_nan BOOLEAN NOT NULL, 
	run_uuid VARCHAR(32) NOT NULL, 
	CONSTRAINT latest_metric_pk PRIMARY KEY ("key", run_uuid), 
	FOREIGN KEY(run_uuid) REFERENCES runs (run_uuid), 
	CHECK (is_nan IN (0, 1))
);
INSERT INTO "latest_metrics" VALUES('val_acc',0.1,1795978274097,0,0,'617b486c3bfe42bb9ac5c0c22c6e89ae');
INSERT INTO "latest_metrics" VALUES('bad',0.0,1795978274152,0,1,'617b486c3bfe42bb9ac5c0c22c6e89ae');
INSERT INTO "latest_metrics" VALUES('val_acc',0.2,1795978274365,0,0,'d8a508229f0f4bb5bbad7516bd73840a');
INSERT INTO "latest_metrics" VALUES('bad',0.0,1795978274401,0,1,'d8a508229f0f4bb5bbad7516bd73840a');
INSERT INTO "latest_metrics" VALUES('val_acc',0.3,1795978274574,0,0,'15e879bdd2454499addf13c8fb220458');
INSERT INTO "latest_metrics" VALUES('bad',0.0,1795978274609,0,1,'15e879bdd2454499addf13c8fb220458');
CREATE TABLE "model_version_tags" (
	"key" VARCHAR(250) NOT NULL, 
	value TEXT, 
	name VARCHAR(256) NOT NULL, 
	version INTEGER NOT NULL, 
	CONSTRAINT model_version_tag_pk PRIMARY KEY ("key", name, version), 
	FOREIGN KEY(name, version) REFERENCES model_versions (name, version) ON UPDATE CASCADE
);
INSERT INTO "model_version_tags" VALUES('mindtrace.seed','1','digits',1);
INSERT INTO "model_version_tags" VALUES('mindtrace.bundle_digest','0000000000000000000000000000000000000000000000000000000000000001','digits',1);
INSERT INTO "model_version_tags" VALUES('mindtrace.metric.val_acc','0.6','digits',1);
INSERT INTO "model_version_tags" VALUES('mindtrace.seed','2','digits',2);
INSERT INTO "model_version_tags" VALUES('mindtrace.bundle_digest','0000000000000000000000000000000000000000000000000000000000000002','digits',2);
INSERT INTO "model_version_tags" VALUES('mindtrace.metric.val_acc','0.7','digits',2);
INSERT INTO "model_version_tags" VALUES('mindtrace.seed','3','digits',3);
INSERT INTO "model_version_tags" VALUES('mindtrace.bundle_digest','0000000000000000000000000000000000000000000000000000000000000003','digits',3);
INSERT INTO "model_version_tags" VALUES('mindtrace.expected','0','digits~history',1);
CREATE TABLE "model_versions" (
	name VARCHAR(256) NOT NULL, 
	version INTEGER NOT NULL, 
	creation_time BIGINT, 
	last_updated_time BIGINT, 
	description VARCHAR(5000), 
	user_id VARCHAR(256), 
	current_stage VARCHAR(20), 
	source VARCHAR(500), 
	run_id VARCHAR(32), 
	status VARCHAR(20), 
	status_message VARCHAR(500), 
	run_link VARCHAR(500), storage_location VARCHAR(500), 
	CONSTRAINT model_version_pk PRIMARY KEY (name, version), 
	FOREIGN KEY(name) REFERENCES registered_models (name) ON UPDATE CASCADE
);
INSERT INTO "model_versions" VALUES('digits',1,1795978274219,1795978274732,NULL,NULL,'Deleted_Internal','REDACTED-SOURCE-PATH','REDACTED-RUN-ID','READY',NULL,'REDACTED-RUN-LINK','runs:/617b486c3bfe42bb9ac5c0c22c6e89ae/bundle');
INSERT INTO "model_versions" VALUES('digits',2,1795978274435,1795978274435,NULL,NULL,'None','runs:/d8a508229f0f4bb5bbad7516bd73840a/bundle','d8a508229f0f4bb5bbad7516bd73840a','READY',NULL,NULL,'runs:/d8a508229f0f4bb5bbad7516bd73840a/bundle');
INSERT INTO "model_versions" VALUES('digits',3,1795978274646,1795978274646,NULL,NULL,'None','runs:/15e879bdd2454499addf13c8fb220458/bundle','15e879bdd2454499addf13c8fb220458','READY',NULL,NULL,'runs:/15e879bdd2454499addf13c8fb220458/bundle');
INSERT INTO "model_versions" VALUES('digits~history',1,1795978274854,1795978274854,NULL,NULL,'None','x',NULL,'READY',NULL,NULL,'x');
CREATE TABLE "params" (
	"key" VARCHAR(250) NOT NULL, 
	value VARCHAR(8000) NOT NULL, 
	run_uuid VARCHAR(32) NOT NULL, 
	CONSTRAINT param_pk PRIMARY KEY ("key", run_uuid), 
	FOREIGN KEY(run_uuid) REFERENCES runs (run_uuid)
);
INSERT INTO "params" VALUES('train.lr','0.01','617b486c3bfe42bb9ac5c0c22c6e89ae');
INSERT INTO "params" VALUES('train.lr','0.01','d8a508229f0f4bb5bbad7516bd73840a');
INSERT INTO "params" VALUES('train.lr','0.01','15e879bdd2454499addf13c8fb220458');
CREATE TABLE registered_model_aliases (
	alias VARCHAR(256) NOT NULL, 
	version INTEGER NOT NULL, 
	name VARCHAR(256) NOT NULL, 
	CONSTRAINT registered_model_alias_pk PRIMARY KEY (name, alias), 
	CONSTRAINT registered_model_alias_name_fkey FOREIGN KEY(name) REFERENCES registered_models (name) ON DELETE cascade ON UPDATE cascade
);
INSERT INTO "registered_model_aliases" VALUES('champion',2,'digits');
CREATE TABLE registered_models (
	name VARCHAR(256) NOT NULL, 
	creation_time BIGINT, 
	last_updated_time BIGINT, 
	description VARCHAR(5000), 
	CONSTRAINT registered_model_pk PRIMARY KEY (name), 
	UNIQUE (name)
);
INSERT INTO "registered_models" VALUES('digits',1795978273859,1795978274732,NULL);
INSERT INTO "registered_models" VALUES('digits~history',1795978273914,1795978274854,NULL);
CREATE TABLE "runs" (
	run_uuid VARCHAR(32) NOT NULL, 
	name VARCHAR(250), 
	source_type VARCHAR(20), 
	source_name VARCHAR(500), 
	entry_point_name VARCHAR(50), 
	user_id VARCHAR(256), 
	status VARCHAR(9), 
	start_time BIGINT, 
	end_time BIGINT, 
	source_version VARCHAR(50), 
	lifecycle_stage VARCHAR(20), 
	artifact_uri VARCHAR(200), 
	experiment_id INTEGER, deleted_time BIGINT, 
	CONSTRAINT run_pk PRIMARY KEY (run_uuid), 
	CONSTRAINT source_type CHECK (source_type IN ('NOTEBOOK', 'JOB', 'LOCAL', 'UNKNOWN', 'PROJECT')), 
	CONSTRAINT runs_lifecycle_stage CHECK (lifecycle_stage IN ('active', 'deleted')), 
	FOREIGN KEY(experiment_id) REFERENCES experiments (experiment_id), 
	CHECK (status IN ('SCHEDULED', 'FAILED', 'FINISHED', 'RUNNING', 'KILLED'))
);
INSERT INTO "runs" VALUES('617b486c3bfe42bb9ac5c0c22c6e89ae','hilarious-skink-758','UNKNOWN','','','unknown','RUNNING',1795978273952,NULL,'','active','file:///srv/mlartifacts/617b486c3bfe42bb9ac5c0c22c6e89ae/artifacts',1,NULL);
INSERT INTO "runs" VALUES('d8a508229f0f4bb5bbad7516bd73840a','righteous-snail-331','UNKNOWN','','','unknown','RUNNING',1795978274274,NULL,'','active','file:///srv/mlartifacts/d8a508229f0f4bb5bbad7516bd73840a/artifacts',1,NULL);
INSERT INTO "runs" VALUES('15e879bdd2454499addf13c8fb220458','dazzling-fowl-639','UNKNOWN','','','unknown','RUNNING',1795978274497,NULL,'','active','file:///srv/mlartifacts/15e879bdd2454499addf13c8fb220458/artifacts',1,NULL);
