-- Written by MLflow 3.13.0; the tables that the reader reads.
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('da6fb0208061');
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
INSERT INTO "latest_metrics" VALUES('val_acc',0.1,1795978137149,0,0,'d92a5500489b40a789b99f8ffd884fc1');
INSERT INTO "latest_metrics" VALUES('bad',0.0,1795978137213,0,1,'d92a5500489b40a789b99f8ffd884fc1');
INSERT INTO "latest_metrics" VALUES('val_acc',0.2,1795978137485,0,0,'c1c386ae74b2454f9475b8745b26575d');
INSERT INTO "latest_metrics" VALUES('bad',0.0,1795978137529,0,1,'c1c386ae74b2454f9475b8745b26575d');
INSERT INTO "latest_metrics" VALUES('val_acc',0.3,1795978137762,0,0,'2a17b8aed7af4ba1b341c6c465fef4a3');
INSERT INTO "latest_metrics" VALUES('bad',0.0,1795978137802,0,1,'2a17b8aed7af4ba1b341c6c465fef4a3');
CREATE TABLE "model_version_tags" (
	"key" VARCHAR(250) NOT NULL, 
	value TEXT, 
	name VARCHAR(256) NOT NULL, 
	version INTEGER NOT NULL, 
	workspace VARCHAR(63) DEFAULT 'default' NOT NULL, 
	CONSTRAINT model_version_tag_pk PRIMARY KEY (workspace, "key", name, version), 
	CONSTRAINT fk_model_version_tags_model_versions FOREIGN KEY(workspace, name, version) REFERENCES model_versions (workspace, name, version) ON UPDATE CASCADE
);
INSERT INTO "model_version_tags" VALUES('mindtrace.seed','1','digits',1,'default');
INSERT INTO "model_version_tags" VALUES('mindtrace.bundle_digest','0000000000000000000000000000000000000000000000000000000000000001','digits',1,'default');
INSERT INTO "model_version_tags" VALUES('mindtrace.metric.val_acc','0.6','digits',1,'default');
INSERT INTO "model_version_tags" VALUES('mindtrace.seed','2','digits',2,'default');
INSERT INTO "model_version_tags" VALUES('mindtrace.bundle_digest','0000000000000000000000000000000000000000000000000000000000000002','digits',2,'default');
INSERT INTO "model_version_tags" VALUES('mindtrace.metric.val_acc','0.7','digits',2,'default');
INSERT INTO "model_version_tags" VALUES('mindtrace.seed','3','digits',3,'default');
INSERT INTO "model_version_tags" VALUES('mindtrace.bundle_digest','0000000000000000000000000000000000000000000000000000000000000003','digits',3,'default');
INSERT INTO "model_version_tags" VALUES('mindtrace.expected','0','digits~history',1,'default');
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
	run_link VARCHAR(500), 
	storage_location VARCHAR(500), 
	workspace VARCHAR(63) DEFAULT 'default' NOT NULL, 
	CONSTRAINT model_version_pk PRIMARY KEY (workspace, name, version), 
	CONSTRAINT fk_model_versions_registered_models FOREIGN KEY(workspace, name) REFERENCES registered_models (workspace, name) ON UPDATE CASCADE
);
INSERT INTO "model_versions" VALUES('digits',1,1795978137270,1795978138021,NULL,NULL,'Deleted_Internal','REDACTED-SOURCE-PATH','REDACTED-RUN-ID','READY',NULL,'REDACTED-RUN-LINK','runs:/d92a5500489b40a789b99f8ffd884fc1/bundle','default');
INSERT INTO "model_versions" VALUES('digits',2,1795978137581,1795978137581,NULL,NULL,'None','runs:/c1c386ae74b2454f9475b8745b26575d/bundle','c1c386ae74b2454f9475b8745b26575d','READY',NULL,NULL,'runs:/c1c386ae74b2454f9475b8745b26575d/bundle','default');
INSERT INTO "model_versions" VALUES('digits',3,1795978137842,1795978137842,NULL,NULL,'None','runs:/2a17b8aed7af4ba1b341c6c465fef4a3/bundle','2a17b8aed7af4ba1b341c6c465fef4a3','READY',NULL,NULL,'runs:/2a17b8aed7af4ba1b341c6c465fef4a3/bundle','default');
INSERT INTO "model_versions" VALUES('digits~history',1,1795978138132,1795978138132,NULL,NULL,'None','x',NULL,'READY',NULL,NULL,'x','default');
CREATE TABLE "params" (
	"key" VARCHAR(250) NOT NULL, 
	value VARCHAR(8000) NOT NULL, 
	run_uuid VARCHAR(32) NOT NULL, 
	CONSTRAINT param_pk PRIMARY KEY ("key", run_uuid), 
	FOREIGN KEY(run_uuid) REFERENCES runs (run_uuid)
);
INSERT INTO "params" VALUES('train.lr','0.01','d92a5500489b40a789b99f8ffd884fc1');
INSERT INTO "params" VALUES('train.lr','0.01','c1c386ae74b2454f9475b8745b26575d');
INSERT INTO "params" VALUES('train.lr','0.01','2a17b8aed7af4ba1b341c6c465fef4a3');
CREATE TABLE "registered_model_aliases" (
	alias VARCHAR(256) NOT NULL, 
	version INTEGER NOT NULL, 
	name VARCHAR(256) NOT NULL, 
	workspace VARCHAR(63) DEFAULT 'default' NOT NULL, 
	CONSTRAINT registered_model_alias_pk PRIMARY KEY (workspace, name, alias), 
	CONSTRAINT fk_registered_model_aliases_registered_models FOREIGN KEY(workspace, name) REFERENCES registered_models (workspace, name) ON DELETE CASCADE ON UPDATE CASCADE
);
INSERT INTO "registered_model_aliases" VALUES('champion',2,'digits','default');
CREATE TABLE "registered_models" (
	name VARCHAR(256) NOT NULL, 
	creation_time BIGINT, 
	last_updated_time BIGINT, 
	description VARCHAR(5000), 
	workspace VARCHAR(63) DEFAULT 'default' NOT NULL, 
	CONSTRAINT registered_model_pk PRIMARY KEY (workspace, name)
);
INSERT INTO "registered_models" VALUES('digits',1795978136846,1795978138021,NULL,'default');
INSERT INTO "registered_models" VALUES('digits~history',1795978136915,1795978138132,NULL,'default');
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
	CONSTRAINT runs_lifecycle_stage CHECK (lifecycle_stage IN ('active', 'deleted')), 
	CONSTRAINT source_type CHECK (source_type IN ('NOTEBOOK', 'JOB', 'LOCAL', 'UNKNOWN', 'PROJECT')), 
	FOREIGN KEY(experiment_id) REFERENCES experiments (experiment_id), 
	CHECK (status IN ('SCHEDULED', 'FAILED', 'FINISHED', 'RUNNING', 'KILLED'))
);
INSERT INTO "runs" VALUES('d92a5500489b40a789b99f8ffd884fc1','dazzling-seal-679','UNKNOWN','','','unknown','RUNNING',1795978136955,NULL,'','active','file:///srv/mlartifacts/d92a5500489b40a789b99f8ffd884fc1/artifacts',1,NULL);
INSERT INTO "runs" VALUES('c1c386ae74b2454f9475b8745b26575d','blushing-gull-155','UNKNOWN','','','unknown','RUNNING',1795978137369,NULL,'','active','file:///srv/mlartifacts/c1c386ae74b2454f9475b8745b26575d/artifacts',1,NULL);
INSERT INTO "runs" VALUES('2a17b8aed7af4ba1b341c6c465fef4a3','gaudy-trout-794','UNKNOWN','','','unknown','RUNNING',1795978137658,NULL,'','active','file:///srv/mlartifacts/2a17b8aed7af4ba1b341c6c465fef4a3/artifacts',1,NULL);
